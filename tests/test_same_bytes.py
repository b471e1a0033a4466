"""Saved files: the same study writes the same bytes, in whatever process; resumed runs have the threads of stored ones."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
import yaml
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tests.studies import changed, toy_spec
from tuneoff.execute.executor import Slots
from tuneoff.execute.local import LocalExecutor
from tuneoff.files import read_json
from tuneoff.skops_file import save_skops

STRATEGIES = ["tfidf", "probe", "head", "lora", "adapter", "peft:type=ia3", "full"]


def test_a_scikit_learn_model_is_saved_in_the_same_bytes_and_reads_back(tmp_path):
    texts, labels = ["a good film", "bad one", "good good", "bad film"], [1, 0, 1, 0]
    for name in "ab":
        model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()).fit(texts, labels)
        save_skops(model, tmp_path / name)
        del model
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert skops.io.get_untrusted_types(file=tmp_path / "a") == []
    loaded = skops.io.load(tmp_path / "a")
    np.testing.assert_array_equal(loaded.predict_proba(texts), make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()).fit(texts, labels).predict_proba(texts))  # fmt: skip


@pytest.mark.slow
def test_the_same_study_writes_the_same_bytes(encoder, toy_csv, tmp_path):
    spec = toy_spec(encoder, toy_csv, strategies=STRATEGIES, seeds=[0], keep="all", workers=1)
    contents = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "study.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json")))
        environment = {**os.environ, "TUNEOFF_CACHE": str(folder / "cache"), "PYTHONHASHSEED": str(number)}
        command = [sys.executable, "-m", "tuneoff", "run", "study.yaml", "--quiet"]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        contents.append(_model_files(folder / "results" / "toy" / "runs"))
    assert contents[0].keys() == contents[1].keys()
    assert len({name.partition("-")[0] for name in contents[0]}) == len(STRATEGIES)
    assert [name for name, content in contents[0].items() if contents[1][name] != content] == []


def _model_files(runs: Path) -> dict[str, bytes]:
    files = [*runs.glob("*/model/**/*"), *runs.glob("*/predictions.parquet")]
    return {path.relative_to(runs).as_posix(): path.read_bytes() for path in files if path.is_file()}


@pytest.mark.parametrize(
    ("now", "threads", "requested", "expected"),
    [
        (Slots(2, 1, cores=2), 1, False, (2, 1)),
        (Slots(1, 2, cores=2), 1, False, (1, 1)),  # less memory is free
        (Slots(2, 1, cores=2), 2, False, (1, 2)),  # more is
        (Slots(2, 4, cores=8), 2, False, (2, 2)),
        (Slots(2, 1, cores=2), 4, False, (1, 2)),  # another machine
        (Slots(2, 1, cores=2), 2, True, (2, 2)),  # the user asks for two at once
    ],
)
def test_slots_keep_the_threads_of_stored_runs(now, threads, requested, expected):
    kept = now.with_threads(threads, requested)
    assert (kept.workers, kept.threads) == expected


@pytest.mark.slow
def test_a_resumed_study_has_the_threads_of_its_stored_runs(small, capfd):
    class Scarce(LocalExecutor):
        """The local executor where memory for one job is free, and where the machine has `cores`."""

        cores = 2

        def slots(self, num_jobs, largest_model, requested=None, devices=1):
            return Slots(1, self.cores, self.cores)

    small.run()
    stored = read_json(small.folder / "slots.json")
    with Scarce() as executor:
        more = changed(small, strategies=["tfidf", "head", "majority"]).run(executor=executor)
    assert {record.machine["threads"] for record in more.records} == {stored["threads"]}
    assert capfd.readouterr().err == ""
    (small.folder / "slots.json").unlink()  # a study of an earlier version: its last session tells
    small.store.write_slots(1, 64)
    with Scarce() as executor:
        more = changed(small, strategies=["tfidf", "head", "untrained"]).run(executor=executor)
    assert {record.machine["threads"] for record in more.records if record.strategy == "untrained"} == {2}
    assert "stored runs had 64 threads each and this machine has 2 cores" in capfd.readouterr().err
    assert read_json(small.folder / "slots.json")["threads"] == 64

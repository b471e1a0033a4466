"""A tiny study from end to end, in worker processes as a user's: run, resume, extend, fail, compare."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import skops.io
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tuneoff
from tuneoff.errors import ConfigError, StoreError
from tuneoff.estimate import good_order
from tuneoff.runs import OK
from tuneoff.spec import study_from
from tuneoff.study import Study, default_name, prepare

pytestmark = pytest.mark.slow

STRATEGIES = [
    "majority",
    "tfidf",
    "untrained",
    "probe",
    "head:learning_rate=0.05",
    "lora:learning_rate=0.05",
    "adapter:reduction=2",
    "full:learning_rate=0.01",
]


def spec(encoder, toy_csv, **changes):
    given = {
        "name": "toy",
        "data": {"source": str(toy_csv), "validation_fraction": 0.2, "test_fraction": 0.2},
        "model": encoder,
        "baselines": False,
        "strategies": STRATEGIES,
        "recipe": {"epochs": 4, "batch_size": 4, "max_length": 16, "precision": "fp32"},
        "seeds": [0, 1],
    }
    return study_from({**given, **changes})


@pytest.fixture(scope="module")
def finished(encoder, tmp_path_factory):
    """One study that has run; tests read it and do not change it."""
    from tests.tiny import toy_texts

    folder = tmp_path_factory.mktemp("study")
    texts, labels = toy_texts(100, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")}).to_csv(
        folder / "toy.csv", index=False
    )
    study = Study(spec(encoder, folder / "toy.csv"), folder / "results")
    events = []
    return study, study.run(events.append), events


def test_every_run_succeeds_and_unseeded_ones_run_once(finished):
    _, comparison, events = finished
    assert comparison.failures == ()
    assert len(comparison.records) == 3 + 5 * 2
    assert {row.label.split()[0]: len(row.seeds) for row in comparison.rows}["tfidf"] == 1
    assert sum(event.kind == "done" for event in events) == 13


def test_scores_are_where_they_belong(finished):
    _, comparison, _ = finished
    score = {row.strategy: row.score for row in comparison.rows}
    assert score["majority"] == 0.5
    assert score["tfidf"] == 1.0
    assert score["full"] >= 0.85
    assert abs(score["untrained"] - 0.5) <= 0.25
    assert comparison.rows[0].difference == 0
    assert all(row.difference <= 0 for row in comparison.rows)
    assert comparison.leaderboard["accuracy"].is_monotonic_decreasing


def test_the_verdict_names_the_tied_and_picks_the_cheapest(finished):
    _, comparison, _ = finished
    verdict = comparison.verdict
    assert verdict.recommended in verdict.tied
    assert verdict.best == comparison.rows[0].group
    tied = [row for row in comparison.rows if row.is_tied]
    assert verdict.recommended == min(tied, key=lambda row: row.costs["train_seconds"]).group
    majority = next(row for row in comparison.rows if row.strategy == "majority")
    assert not majority.is_tied
    assert comparison.rows[0].label in verdict.text


def test_a_study_leaves_what_the_docs_say(finished):
    study, comparison, _ = finished
    for name in (
        "study.yaml",
        "data.json",
        "comparison.json",
        "report.md",
        "report/index.html",
        "tables/leaderboard.csv",
        "tables/leaderboard.tex",
        "figures/scores.svg",
        "figures/scores.png",
    ):
        assert (study.folder / name).stat().st_size > 0, name
    lora = next(record for record in comparison.records if record.strategy == "lora")
    folder = study.store.path(lora.run_id)
    assert {path.name for path in folder.iterdir()} == {"run.json", "history.parquet", "predictions.parquet", "model"}
    assert (folder / "model" / "adapter_model.safetensors").is_file()
    card = (folder / "model" / "README.md").read_text()
    for part in (
        lora.run_id,
        "negative, positive",
        "peft.PeftModel.from_pretrained",
        f"| test | {lora.metrics['test']['accuracy']:.3f} |",
    ):
        assert part in card
    stored = json.loads((folder / "run.json").read_text())
    for cost in (
        "encode_seconds",
        "train_seconds",
        "evaluate_seconds",
        "peak_bytes",
        "model_bytes",
        "examples_per_second",
        "tokens_per_second",
    ):
        assert stored["costs"][cost] >= 0, cost
    assert stored["costs"]["peak_bytes"] > 1e8
    assert stored["parameters"]["trainable"] == stored["parameters"]["added"] + stored["parameters"]["head"]
    assert set(stored["metrics"]) == {"validation", "test"}
    assert not list(study.folder.rglob("*.bin"))
    assert not list(study.folder.rglob("*.pkl"))


def test_stored_scores_follow_from_stored_predictions(finished):
    study, comparison, _ = finished
    for record in comparison.records:
        for split in ("validation", "test"):
            rows = study.store.predictions(record.run_id, split)
            assert (rows["label"] == rows["predicted"]).mean() == pytest.approx(record.metrics[split]["accuracy"])
            np.testing.assert_allclose(rows[["p0", "p1"]].sum(axis=1), 1, atol=1e-5)


def stored_and_given(study, comparison, strategy, load):
    """A run's stored test probabilities, and those of its saved model as plain transformers gives them."""
    from tuneoff.data.load import open_dataset

    record = next(record for record in comparison.records if record.strategy == strategy)
    folder = study.store.path(record.run_id) / "model"
    texts = open_dataset(record.spec["data_fingerprint"]).splits["test"]["text"].to_pylist()
    batch = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        given = load(str(folder)).eval()(**batch).logits.softmax(-1).numpy()
    return study.store.predictions(record.run_id, "test")[["p0", "p1"]].to_numpy(), given


@pytest.mark.parametrize("strategy", ["full", "head", "untrained"])
def test_a_saved_model_loads_in_transformers_and_predicts_the_same(finished, strategy):
    stored, given = stored_and_given(*finished[:2], strategy, AutoModelForSequenceClassification.from_pretrained)
    np.testing.assert_allclose(given, stored, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_saved_lora_loads_in_peft_and_predicts_the_same(finished, encoder):
    def load(folder):
        return PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2), folder
        )

    stored, given = stored_and_given(*finished[:2], "lora", load)
    np.testing.assert_allclose(given, stored, atol=1e-5)


def test_what_trained_in_bf16_is_stored_as_others_compute_it(encoder, toy_csv, tmp_path):
    strategies = ["head:learning_rate=0.05", "partial:layers=1", "full:learning_rate=0.01"]
    recipe = {"epochs": 1, "batch_size": 4, "max_length": 16, "precision": "bf16"}
    study = Study(spec(encoder, toy_csv, strategies=strategies, recipe=recipe, seeds=[0]), tmp_path / "results")
    comparison = study.run()
    for strategy in ("head", "partial", "full"):
        stored, given = stored_and_given(
            study, comparison, strategy, AutoModelForSequenceClassification.from_pretrained
        )
        np.testing.assert_allclose(given, stored, atol=1e-5, err_msg=strategy)


def test_a_saved_tfidf_loads_in_skops(finished):
    study, comparison, _ = finished
    record = next(record for record in comparison.records if record.strategy == "tfidf")
    file = study.store.path(record.run_id) / "model" / "classifier.skops"
    classifier = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
    assert classifier.predict(["good great fine", "bad awful poor"]).tolist() == [1, 0]


def test_running_again_runs_nothing(finished):
    study, comparison, _ = finished
    events = []
    again = study.run(events.append)
    assert events == []
    assert again.to_json() == comparison.to_json()


def test_the_report_can_be_rebuilt_alone(finished):
    study, _, _ = finished
    (study.folder / "report" / "index.html").unlink()
    Study.open(study.folder).report()
    assert (study.folder / "report" / "index.html").is_file()


@pytest.fixture
def small(encoder, toy_csv, tmp_path):
    """A quick study of two strategies, for tests that change it."""
    return Study(
        spec(encoder, toy_csv, strategies=["tfidf", "head"], seeds=[0], recipe={"epochs": 1, "max_length": 16}),
        tmp_path / "small",
    )


def changed(study, **changes):
    return Study(study_from({**study.spec.model_dump(mode="json"), **changes}), study.folder)


def test_a_seed_or_strategy_more_runs_only_that(small):
    small.run()
    made = []
    wider = changed(small, seeds=[0, 1], strategies=["tfidf", "head", "majority"])
    comparison = wider.run(
        lambda event: made.append((event.run.strategy.name, event.run.seed)) if event.kind == "started" else None
    )
    assert sorted(made) == [("head", 1), ("majority", 0)]
    assert len(comparison.records) == 4


def test_the_same_study_gives_the_same_bits(small, tmp_path):
    one = small.run()
    two = Study(small.spec, tmp_path / "again").run()
    assert [row.scores for row in one.rows] == [row.scores for row in two.rows]
    head = next(record.run_id for record in one.records if record.strategy == "head")
    left, right = (
        RunFolder / "runs" / head / "model" / "model.safetensors" for RunFolder in (small.folder, tmp_path / "again")
    )
    assert left.read_bytes() == right.read_bytes()


def test_a_diverged_run_is_named_and_left_out(small):
    wild = changed(
        small,
        strategies=["tfidf", "full:learning_rate=1.0"],
        recipe={"epochs": 3, "max_length": 16, "clip": 1e30, "warmup": 0, "weight_decay": 1e30},
    )
    comparison = wild.run()
    assert [record.status for record in comparison.failures] == ["diverged"]
    assert "lower the learning rate" in comparison.failures[0].error
    assert [row.strategy for row in comparison.rows] == ["tfidf"]
    assert "lower the learning rate" in (small.folder / "report.md").read_text()
    events = []
    wild.run(events.append)
    assert events == []


def test_a_run_whose_process_dies_is_stored_as_failed(small, monkeypatch):
    monkeypatch.setattr("tuneoff.execute.pool.WORKER", "tests.execute.crashing_worker")
    comparison = small.run()
    failed = {record.strategy: record for record in comparison.failures}
    assert set(failed) == {"head"}
    assert "killed" in failed["head"].error
    monkeypatch.undo()
    events = []
    assert small.run(events.append).failures == ()
    assert {event.run.strategy.name for event in events} == {"head"}


def test_a_worker_that_cannot_start_says_why(small, monkeypatch):
    monkeypatch.setattr("tuneoff.execute.pool.WORKER", "tests.execute.no_such_worker")
    with pytest.raises(StoreError, match=r"ended with code 1: .*No module named tests.execute.no_such_worker"):
        small.run()


def test_where_nothing_may_fork_every_run_starts_afresh(small, monkeypatch):
    monkeypatch.setattr("tuneoff.execute.pool.WORKER", "tests.execute.forkless_worker")
    comparison = small.run()
    assert comparison.failures == ()
    assert {record.status for record in comparison.records} == {OK}


def test_a_study_is_run_by_one_process_at_a_time(small):
    import filelock

    small.folder.mkdir()
    with filelock.FileLock(small.folder / ".lock"), pytest.raises(StoreError, match="another process is running"):
        small.run()


def test_a_rejected_study_leaves_the_stored_one_as_it_was(small, toy, tmp_path):
    small.run()
    before = {path: path.read_bytes() for path in small.folder.glob("*.*")}
    with pytest.raises(ConfigError, match="2 blocks"):
        changed(small, strategies=["partial:layers=9"]).run()
    toy[:50].to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(StoreError, match=r"holds a study of other data .* another name"):
        changed(small, data={"source": str(tmp_path / "other.csv")}).run()
    assert {path: path.read_bytes() for path in small.folder.glob("*.*")} == before


def test_every_run_of_a_grid_has_the_same_threads(small):
    small.run()
    wider = changed(small, strategies=["tfidf", "head", "majority"])
    assert len({record.machine["threads"] for record in wider.run().records}) == 1


def test_a_killed_study_takes_its_runs_along(encoder, toy, tmp_path):
    pd.concat([toy] * 30).to_csv(tmp_path / "long.csv", index=False)
    given = {
        "name": "long",
        "data": {"source": "long.csv"},
        "model": encoder,
        "strategies": ["full"],
        "seeds": [0, 1],
        "recipe": {"epochs": 500, "max_length": 16},
    }
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "tuneoff", "run", "long.yaml", "--workers", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as study:
        family, deadline = [], time.monotonic() + 90
        while len(family) < 3 and time.monotonic() < deadline:  # the worker and its two runs
            time.sleep(0.5)
            family = psutil.Process(study.pid).children(recursive=True)
        study.kill()
    assert len(family) == 3
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert not list((tmp_path / "results" / "long" / "runs").glob("full*"))


def test_a_run_that_nobody_listens_to_ends_at_once(encoder, toy_csv, tmp_path):
    (run, *_) = prepare(spec(encoder, toy_csv, strategies=["full"], recipe={"epochs": 50, "max_length": 16})).runs
    job = {"run_id": run.run_id, "kind": "run", "run": run.model_dump(mode="json"), "threads": 1}
    job |= {"store": str(tmp_path / "runs"), "log": str(tmp_path / "log")}
    command = [sys.executable, "-m", "tuneoff.execute.worker", "--one", json.dumps(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        worker.stdout.close()
        assert worker.wait(timeout=60) == 1
    assert not list((tmp_path / "runs").glob("full*"))


def test_python_compares_a_dataframe(toy, encoder, tmp_path):
    comparison = tuneoff.compare(
        toy,
        model=encoder,
        strategies=["majority", tuneoff.Head(learning_rate=0.05)],
        seeds=1,
        folder=tmp_path / "frame",
        recipe={"epochs": 1, "max_length": 16},
    )
    assert {record.status for record in comparison.records} == {OK}
    assert list(comparison.leaderboard["strategy"]) != []
    assert comparison.verdict.text


def test_pairs_and_three_classes(encoder, tmp_path):
    rng = np.random.default_rng(0)
    from tests.tiny import toy_texts

    first, labels = toy_texts(90, rng)
    second, others = toy_texts(90, rng)
    frame = pd.DataFrame({"premise": first, "hypothesis": second, "label": labels + rng.permutation(others)})
    comparison = tuneoff.compare(
        frame,
        model=encoder,
        strategies=["tfidf", "full"],
        seeds=1,
        folder=tmp_path / "pairs",
        recipe={"epochs": 1, "max_length": 32},
    )
    assert comparison.failures == ()
    assert comparison.data["is_pair"]
    assert comparison.confusion[comparison.rows[0].group].shape == (3, 3)


def test_two_encoders_share_what_needs_none(encoder, toy_csv, tmp_path):
    study = Study(
        spec(encoder, toy_csv, strategies=["tfidf", "probe"], model=[encoder, "packaged:minilm"], seeds=[0]),
        tmp_path / "two",
    )
    comparison = study.run()
    assert sorted(record.strategy for record in comparison.records) == ["probe", "probe", "tfidf"]


def test_a_plan_counts_the_missing_runs_and_trains_nothing(small):
    plan, speed = small.plan()
    assert [e.run.strategy.name for e in plan] == ["tfidf", "head"]
    assert speed > 0
    assert not small.folder.exists()
    small.run()
    assert small.plan()[0] == []


def test_nobody_waits_for_frozen_states_that_another_run_computes(small):
    strategies = ["probe", "partial:layers=1", "full", "head"]
    order = good_order(changed(small, strategies=strategies, seeds=[0, 1]).plan()[0])
    names = [estimate.run.strategy.name for estimate in order]
    assert set(names[:2]) == {"partial", "probe"}  # one of those that share a frozen block, one of those that share all
    assert names[2:] == ["full", "full", "partial", "head", "head"]


def test_a_length_beyond_the_encoder_is_an_error(small):
    with pytest.raises(ConfigError, match=r"max_length 65 is above what .* takes; use at most 64"):
        changed(small, recipe={"max_length": 65}).run()


def test_names_come_from_sources():
    assert default_name("a/reviews.csv") == "reviews"
    assert default_name("hf:stanfordnlp/imdb") == "stanfordnlp-imdb"
    assert default_name("packaged:rotten-tomatoes") == "rotten-tomatoes"


def test_a_written_study_opens_from_its_folder(small):
    small.run()
    assert Study.open(small.folder).spec == small.spec
    assert yaml.safe_load((small.folder / "study.yaml").read_text())["recipe"]["clip"] == 1.0

"""A trained model's folder that a stranger sent: loaded or refused in one line, and nothing of it runs."""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import skops.io

pytest.importorskip("hypothesis")

from tests.hostile.guard import REFUSED, guarded
from tests.hostile.models import MARK, VARIANTS, random_bytes, write
from tests.hostile.profiles import EXAMPLES
from tests.tiny import toy_texts
from tuneoff import TextClassifier
from tuneoff.deliver.find import load

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")

TEXTS = ["good great fine", "bad awful poor", ""]


@pytest.fixture(scope="module")
def folders(encoder, tmp_path_factory):
    """Models that are as they should be: of scikit-learn, whole, and what is added to an encoder."""
    texts, labels = toy_texts(60, np.random.default_rng(0))
    folders = {}
    for strategy in ("tfidf", "full", "lora"):
        folders[strategy] = tmp_path_factory.mktemp("saved") / strategy
        fitted = TextClassifier(strategy, model=encoder, epochs=1, max_length=16).fit(texts, labels)
        fitted.save(folders[strategy])
    return folders


def use(folder):
    load(folder).predict(TEXTS)


def damage(file, rng):
    """Cut a file, replace some bytes of it, or one character of a text."""
    content = bytearray(file.read_bytes())
    kind = rng.integers(4)
    if kind == 0:
        file.write_bytes(content[: rng.integers(len(content))])
    elif kind == 1 or file.suffix in (".safetensors", ".skops"):
        random_bytes(file, rng)
    else:
        content[rng.integers(len(content))] = rng.integers(33, 127)
        file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["tfidf", "full", "lora"])
def test_a_damaged_model_is_refused_in_one_line_or_used(strategy, folders, tmp_path, record_property):
    kinds = set()
    for number in range(max(30, EXAMPLES // 50)):
        folder, rng = tmp_path / str(number), np.random.default_rng(number)
        shutil.copytree(folders[strategy], folder)
        damage(rng.choice(sorted(path for path in folder.rglob("*") if path.is_file())), rng)
        outcome = guarded(use, folder, seconds=60)
        assert outcome.is_good, (number, outcome)
        kinds.add(outcome.kind)
        shutil.rmtree(folder)
    record_property("examples", number + 1)
    assert REFUSED in kinds


NAMED = ["adapter", "config-hidden_size=10000000", "fifo-model.safetensors", "header-shape", "index-pickle-outside", "link-out-model.safetensors", "pickle-as-safetensors", "tokenizer-huge"]  # fmt: skip
OTHERS = [name for name in VARIANTS if not name.startswith("weights-")]  # which name an encoder's tensors


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in NAMED else pytest.param(name, marks=pytest.mark.soak) for name in OTHERS]
)
def test_a_hostile_model_of_a_run_runs_nothing(name, folders, tmp_path, monkeypatch):
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    write(name, folders["full"], tmp_path / "model")
    outcome = guarded(use, tmp_path / "model", seconds=60)
    assert outcome.is_good, outcome
    assert not (tmp_path / "mark").exists()


class Evil:
    """Something that runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch ${MARK}",)


def _npy(shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def _pickled():
    content = io.BytesIO()
    np.save(content, np.array([Evil()], dtype=object), allow_pickle=True)
    return content.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["other-type", "pickled-array", "array-that-lies", "bomb", "deep-schema"])
def test_a_hostile_classifier_runs_nothing(kind, folders, tmp_path, monkeypatch):
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    folder = tmp_path / "model"
    shutil.copytree(folders["tfidf"], folder)
    file = folder / "classifier.skops"
    with zipfile.ZipFile(file) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    array = next(name for name in files if name.endswith(".npy"))
    if kind == "other-type":
        skops.io.dump({"a": tmp_path}, file)
    else:
        files |= {
            "pickled-array": {array: _pickled()},
            "array-that-lies": {array: _npy((2**40,))},
            "bomb": {array: _npy((2**29,)) + bytes(2**32)} if EXAMPLES > 100 else {array: _npy((2**26,)) + bytes(2**29)},
            "deep-schema": {"schema.json": b"[" * 100_000},
        }[kind]  # fmt: skip
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    outcome = guarded(use, folder, seconds=60)
    assert outcome.is_good, outcome
    assert outcome.kind == REFUSED, outcome
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff", json.dumps({"format": 2}).encode()], ids=range(7))  # fmt: skip
def test_a_hostile_description_is_one_line(content, folders, tmp_path):
    shutil.copytree(folders["tfidf"], tmp_path / "model")
    (tmp_path / "model" / "tuneoff.json").write_bytes(content)
    outcome = guarded(use, tmp_path / "model")
    assert outcome.is_good, outcome
    assert outcome.kind == REFUSED

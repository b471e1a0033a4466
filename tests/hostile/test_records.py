"""Records, logs, predictions and corrections of any content: read, or refused in one line."""

import json

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.data_files import CONTENTS, damaged
from tests.hostile.forking import ForkedReader
from tests.hostile.guard import called
from tests.hostile.profiles import quick
from tuneoff.data import isolated
from tuneoff.data.corrections import apply_corrections
from tuneoff.data.predictions import read_predictions
from tuneoff.data.spec import DataSpec
from tuneoff.runs import StudyStore
from tuneoff.trainer_logs import read_trainer_log

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_LOG = {
    "log_history": [
        {"step": 1, "epoch": 1, "loss": 0.5},
        {"step": 2, "epoch": 2, "eval_loss": 0.4, "eval_accuracy": 0.9},
    ],
    "best_global_step": 2,
}
_RUN: dict[str, object] = {
    "run_id": "a",
    "group": "a",
    "strategy": "full",
    "label": "full",
    "model": None,
    "seed": 0,
    "status": "ok",
    "costs": {},
}


@st.composite
def changed(draw, record):
    """The bytes of a record with some values replaced, then perhaps damaged."""
    if not draw(st.integers(0, 5)):
        return draw(
            st.sampled_from(
                [b"", b"null", b"[", b"[]", b"{}", b"[" * 50_000, b"\xff", json.dumps(draw(_JSON)).encode()]
            )
        )
    content = json.loads(json.dumps(record))
    for key in draw(st.lists(st.sampled_from([*record, "evil"]), max_size=3)):
        content[key] = draw(_JSON)
    return draw(damaged(json.dumps(content).encode()))


def check(content, path, read):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    kind, text = called(read)
    assert kind in ("accepted", "refused"), text
    assert "\n" not in text


def test_any_trainer_log(tmp_path):
    path = tmp_path / "trainer_state.json"
    quick(given(changed(_LOG))(lambda content: check(content, path, lambda: read_trainer_log("theirs", str(path)))))()


def test_any_run_record(tmp_path):
    store, path = StudyStore(tmp_path).runs, tmp_path / "runs" / "a" / "run.json"
    quick(given(changed(_RUN))(lambda content: check(content, path, lambda: store.record("a"))))()


@pytest.mark.parametrize(("file", "record", "read"), [
    ("sessions.json", {"runs": 1}, StudyStore.sessions),
    ("data.json", {"runs": [], "searches": []}, StudyStore.read_data),
    ("tests.json", {"name": "a"}, StudyStore.read_tests),
])  # fmt: skip
def test_any_record_of_a_study(file, record, read, tmp_path):
    path = tmp_path / file
    quick(given(changed(record))(lambda content: check(content, path, lambda: read(StudyStore(tmp_path)))))()


@pytest.mark.parametrize("ending", CONTENTS)
def test_any_predictions(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "_start", ForkedReader)
    test = pa.table({"text": ["a text of 0 words", "b"], "label": np.array([0, 1])})
    path = tmp_path / f"p.{ending}"
    arguments = ("theirs", str(path), test, ("good", "bad"), DataSpec(source="a.csv"), "accuracy")
    quick(given(CONTENTS[ending])(lambda content: check(content, path, lambda: read_predictions(*arguments))))()


def test_any_corrections(tmp_path):
    tables = {"train": pa.table({"text": ["a", "b"], "label": np.array([0, 1]), "row": [1, 2]})}
    path = tmp_path / "c.csv"
    quick(
        given(CONTENTS["csv"])(
            lambda content: check(content, path, lambda: apply_corrections(tables, ("good", "bad"), str(path), []))
        )
    )()

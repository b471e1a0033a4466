"""Scores on the clean part of test, and what they change."""

import json

import numpy as np
import pyarrow as pa
import pytest

from tests.stored import stored_study
from tuneoff.data.dataset import COPY
from tuneoff.data.doctor.copies import CLEAN, LEAKED, REPEATED
from tuneoff.files import read_json, write_table
from tuneoff.report.findings import clean_table, finding_blocks
from tuneoff.report.section import Bullets
from tuneoff.runs import RunPredictions

NUM_TEST = 400


@pytest.fixture
def study(tmp_path):
    """A stored study of two strategies."""
    return stored_study(tmp_path / "s", [("tfidf", "tfidf", 0.75), ("lora", "lora", 0.9)], seeds=2, num_test=NUM_TEST)


def mark(study, codes):
    """Store which test examples are leaked or repeated."""
    test = study.store.test_table()
    write_table(test.append_column(COPY, pa.array(codes.astype(np.uint8))), study.folder / "test.parquet")


def codes_of(leaked=0, repeated=0):
    codes = np.full(NUM_TEST, CLEAN)
    codes[:leaked], codes[NUM_TEST - repeated :] = LEAKED, REPEATED
    return codes


def test_clean_scores_are_those_of_the_clean_examples(study):
    mark(study, codes_of(leaked=100, repeated=20))
    comparison = study.comparison()
    clean = comparison.clean
    assert (clean.examples, clean.leaked, clean.repeated) == (280, 100, 20)
    is_clean = codes_of(leaked=100, repeated=20) == CLEAN
    labels = study.store.test_examples()["label"].to_numpy()
    for group, (score, low, high) in clean.estimates.items():
        predicted = comparison.predictions[group].predicted[:, is_clean]
        assert score == pytest.approx((predicted == labels[is_clean]).mean())
        assert low < score < high
    assert clean.order == sorted(clean.estimates, key=lambda group: -clean.estimates[group][0])
    assert clean.summary.startswith(
        "Of 400 test examples 100 are also in train or validation and 20 repeat an earlier one. On the 280 others, "
    )
    assert len(clean_table(comparison).rows) == 2


def test_a_changed_order_and_pick_are_stated(study):
    codes = codes_of(leaked=200)
    mark(study, codes)
    # the strategy that is worse on the clean part is right on all leaked texts
    spoil(study, "lora", codes == LEAKED)
    comparison = study.comparison()
    names = comparison.names
    assert names[comparison.rows[0].group] == "lora"
    assert names[comparison.clean.order[0]] == "tfidf"
    assert "the order of the strategies changes (tfidf, lora)" in comparison.clean.summary
    assert comparison.clean.summary.endswith("and the pick changes from lora to tfidf.")
    study._write(comparison)
    page = (study.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "the pick changes from lora to tfidf" in page
    assert read_json(study.folder / "comparison.json")["clean"]["recommended"] == comparison.clean.recommended
    assert (study.folder / "tables" / "clean.csv").is_file()


def spoil(study, strategy, is_leaked):
    """Make a stored strategy right on all leaked test examples, and on 70 % of the others."""
    for record in study.comparison().records:
        if record.strategy != strategy:
            continue
        stored = study.store.runs.predictions(record.run_id, "test")
        labels = stored["label"].to_numpy()
        is_right = is_leaked | (np.arange(len(labels)) % 10 < 7)
        predicted = np.where(is_right, labels, 1 - labels)
        probabilities = np.where(np.arange(2) == predicted[:, None], 0.9, 0.1)
        validation = study.store.runs.predictions(record.run_id, "validation")
        of_validation = validation["label"].to_numpy(), validation["predicted"].to_numpy(), validation[["p0", "p1"]].to_numpy()  # fmt: skip
        predictions = RunPredictions(
            {"validation": of_validation[0], "test": labels},
            {"validation": of_validation[1], "test": predicted},
            {"validation": of_validation[2], "test": probabilities},
        )
        path = study.store.runs.path(record.run_id)
        write_table(predictions.table(), path / "predictions.parquet")
        scores = read_json(path / "run.json")
        scores["metrics"]["test"]["accuracy"] = float(is_right.mean())
        (path / "run.json").write_text(json.dumps(scores))


@pytest.mark.parametrize("codes", [codes_of(), codes_of(leaked=NUM_TEST - 5)])
def test_nothing_is_said_if_all_examples_are_clean_or_next_to_none(study, codes):
    mark(study, codes)
    assert study.comparison().clean is None


def test_a_study_of_an_earlier_version_has_no_clean_scores_and_its_findings_are_read(study):
    path = study.folder / "data.json"
    stored = read_json(path)
    stored["findings"] = ["leakage from train into test: 1 of 33 test examples are also in train"]
    path.write_text(json.dumps(stored))
    comparison = study.comparison()
    assert comparison.clean is None
    assert comparison.data.findings[0].kind == "leakage from train into test"
    assert [block.items for block in finding_blocks(comparison) if isinstance(block, Bullets)] == [stored["findings"]]

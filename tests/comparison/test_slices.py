"""Slices: parts of the test split by the values of a column, each scored on its own."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score

from tests.data.frames import frame, load
from tests.stored import stored_study
from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.slices import score_slices
from tuneoff.errors import DataError
from tuneoff.files import write_table
from tuneoff.scoring.stats import RunScores
from tuneoff.study import Study


def whole_scores(*seeds, folds=None):
    """Scores on all examples, of which a slice takes seeds and folds alone."""
    return RunScores(np.zeros(len(seeds)), np.zeros((len(seeds), 2)), seeds, folds=folds)


def slice_sizes(values):
    """Score one run, always correct, on the slices of one column: slice -> number of examples, in order."""
    probabilities = np.tile([[0.9, 0.1]], (1, len(values), 1))
    predictions = {"full-1": Predictions(probabilities.argmax(2), probabilities)}
    columns = pd.DataFrame({"slice:column": values})
    scores = {"full-1": whole_scores(0)}
    table = score_slices(np.zeros(len(values), int), predictions, scores, columns, "accuracy")
    assert (table["slice"] == "column").all()
    return dict(zip(table["value"], table["examples"], strict=True))


def test_the_score_of_a_slice_is_that_of_its_examples():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(2, size=90), rng.dirichlet([1, 1], (2, 90))
    predictions = {"lora-1": Predictions(probabilities.argmax(2), probabilities)}
    columns = pd.DataFrame({"text": ["x"] * 90, "slice:source": ["web"] * 30 + ["mail"] * 59 + ["odd"]})
    scores = {"lora-1": whole_scores(0, 1)}
    table = score_slices(labels, predictions, scores, columns, "accuracy").set_index("value")
    assert table["examples"].to_dict() == {"mail": 59, "web": 30}  # a slice of one example is left out
    expected = [accuracy_score(labels[:30], run[:30].argmax(1)) for run in probabilities]
    assert table["score"]["web"] == pytest.approx(np.mean(expected))
    assert (table["low"] < table["score"]).all()
    assert (table["score"] < table["high"]).all()


def test_a_slice_without_the_class_of_a_metric_is_left_out():
    labels = np.array([0, 1] * 30 + [0] * 40)
    probabilities = np.random.default_rng(0).dirichlet([1, 1], (1, 100))
    predictions = {"full-1": Predictions(probabilities.argmax(2), probabilities)}
    columns = pd.DataFrame({"slice:source": ["mail"] * 60 + ["blog"] * 40})

    def values(metric, positive=None):
        return list(score_slices(labels, predictions, {"full-1": whole_scores(0)}, columns, metric, positive)["value"])

    assert values("accuracy") == values("macro_f1") == ["mail", "blog"]
    assert values("roc_auc") == values("recall", 1) == values("mcc") == ["mail"]


def test_slices_of_folds_are_as_wide_as_those_of_the_whole():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(2, size=1000), rng.dirichlet([1, 1], (1, 1000))
    predictions = {"full-1": Predictions(probabilities.argmax(2), probabilities)}
    columns = pd.DataFrame({"slice:source": ["web"] * 1000})

    def width(**options):
        table = score_slices(labels, predictions, {"full-1": whole_scores(0, **options)}, columns, "accuracy")
        return (table["high"] - table["low"]).item()

    assert width(folds=np.arange(1000) % 5) > 1.1 * width()


def test_many_numbers_become_four_ranges():
    sizes = slice_sizes([str(i) for i in range(300)])
    assert sizes == {"0 to 74": 75, "75 to 149": 75, "150 to 224": 75, "225 to 299": 75}


def test_the_rarest_of_many_values_share_a_slice():
    sizes = slice_sizes([f"a{i % 25}" for i in range(150)] + ["b"] * 150)
    assert len(sizes) == 20
    assert sizes["(7 rarer values)"] == 42


@pytest.mark.parametrize("start", [0, 1_700_000_000])
def test_missing_values_are_the_last_slice_and_large_numbers_keep_their_digits(start):
    sizes = slice_sizes([str(start + i) for i in range(160)] + [""] * 40)
    assert list(sizes.values()) == [40] * 5
    assert list(sizes)[-1] == "(missing)"


def test_a_value_named_other_is_a_slice_of_its_own():
    assert slice_sizes(["other"] * 30 + [f"w{i % 25}" for i in range(100)])["other"] == 30


def test_slice_columns_do_not_change_the_fingerprint_of_the_data():
    data = frame([0, 1] * 20, source=["web", "mail"] * 20)
    assert load(data).fingerprint == load(data, slices=("source",)).fingerprint


def test_an_unknown_slice_column_is_refused_with_a_suggestion():
    with pytest.raises(DataError, match="column 'sorce' is unknown; did you mean 'source'"):
        load(frame([0, 1] * 20, source=["web", "mail"] * 20), slices=("sorce",))


def test_the_report_shows_slices_and_escapes_their_names(tmp_path):
    study = stored_study(tmp_path / "stored", [("full", "full", 0.9), ("lora", "lora", 0.7)])
    examples = study.comparison().examples
    examples["slice:so/urce <b>"] = ["web", "mail"] * (len(examples) // 2)
    write_table(pa.Table.from_pandas(examples, preserve_index=False), study.folder / "test.parquet")
    comparison = Study.open(study.folder).report()
    assert set(comparison.slices["value"]) == {"web", "mail"}
    page = (study.folder / "report" / "index.html").read_text()
    assert "so/urce &lt;b&gt;" in page
    assert "so/urce <b>" not in page
    assert (study.folder / "figures" / "slice-so-urce--b-.svg").is_file()
    assert len((study.folder / "tables" / "slices.csv").read_text().splitlines()) == 3

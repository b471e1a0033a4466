"""A threshold of two classes is chosen on validation, stored with the run, and followed by everything that predicts."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.studies import toy_spec
from tests.tiny import toy_texts
from tuneoff.deliver.find import load
from tuneoff.files import read_arrow
from tuneoff.study import Study


@pytest.fixture(scope="module")
def study(encoder, tmp_path_factory):
    """A study of texts of which few are positive, and some of the others look so."""
    folder = tmp_path_factory.mktemp("threshold")
    texts, labels = toy_texts(240, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    names = np.where((labels == 1) & (rng.random(240) < 0.4), "yes", "no")
    pd.DataFrame({"text": texts, "label": names}).to_csv(folder / "rare.csv", index=False)
    spec = toy_spec(
        encoder, folder / "rare.csv", name="rare", metric="f1", threshold="validation", keep="all",
        strategies=["majority", "tfidf", "probe", "head:learning_rate=0.05"], seeds=[0],
    )  # fmt: skip
    study = Study(spec, folder / "results")
    study.run()
    return study


def test_predictions_follow_the_stored_threshold(study):
    thresholds = {}
    for path in study.folder.glob("runs/*/run.json"):
        stored = json.loads(path.read_text())
        predictions = pd.read_parquet(path.parent / "predictions.parquet")
        if stored["thresholds"] is None:
            assert stored["strategy"] == "majority"
            assert (predictions["predicted"] == 0).all()
            continue
        (thresholds[stored["strategy"]],) = stored["thresholds"]
        is_far = (predictions["p1"] - thresholds[stored["strategy"]]).abs() > 1e-6  # stored in fp32
        expected = predictions["p1"] >= thresholds[stored["strategy"]]
        assert (predictions["predicted"] == expected)[is_far].all()
    assert set(thresholds) == {"tfidf", "probe", "head"}
    assert thresholds["tfidf"] < 0.5


@pytest.mark.parametrize("strategy", ["tfidf", "probe", "head"])
def test_a_loaded_model_predicts_as_its_run_did(study, strategy):
    run = next(path.name for path in study.folder.glob(f"runs/{strategy}-*"))
    predictions = pd.read_parquet(study.folder / "runs" / run / "predictions.parquet")
    expected = predictions[predictions["split"] == "test"]["predicted"].map({0: "no", 1: "yes"})
    texts = read_arrow(study.folder / "test.parquet")["text"].to_pylist()
    assert load(study.folder, run=run).predict(texts).tolist() == expected.tolist()


def test_the_report_and_the_card_state_it(study):
    text = (study.folder / "report.md").read_text()
    assert "'yes' is predicted from the probability that had the best f1 on validation, instead of 0.5: " in text
    card = next(study.folder.glob("runs/tfidf-*/model/README.md")).read_text()
    assert "yes is predicted if its probability is at least 0." in card
    assert '(threshold,) = described["thresholds"]' in card


def test_the_runs_of_other_studies_keep_their_ids(study):
    stored = {record.run_id: record.spec for record in study.comparison().records}
    spec = next(spec for run_id, spec in stored.items() if run_id.startswith("majority"))
    assert spec["threshold"] is None
    assert all(spec["threshold"] for run_id, spec in stored.items() if not run_id.startswith("majority"))

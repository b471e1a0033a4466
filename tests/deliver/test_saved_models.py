"""Saved models load in transformers, peft and skops, and reproduce the stored predictions."""

import numpy as np
import pytest
import skops.io
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.studies import toy_spec
from tuneoff.data.load import open_dataset
from tuneoff.study import Study

pytestmark = pytest.mark.slow


def stored_and_given(study, comparison, strategy, load):
    """A run's stored test probabilities, and those of its saved model as plain transformers gives them."""
    record = next(record for record in comparison.records if record.strategy == strategy)
    folder = study.store.runs.path(record.run_id) / "model"
    texts = open_dataset(record.spec["data_fingerprint"]).splits["test"]["text"].to_pylist()
    batch = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        given = load(str(folder)).eval()(**batch).logits.softmax(-1).numpy()
    return study.store.runs.predictions(record.run_id, "test")[["p0", "p1"]].to_numpy(), given


@pytest.mark.parametrize("strategy", ["full", "head", "untrained"])
def test_a_saved_model_loads_in_transformers_and_predicts_the_same(finished, strategy):
    study, comparison, _ = finished
    stored, given = stored_and_given(study, comparison, strategy, AutoModelForSequenceClassification.from_pretrained)
    np.testing.assert_allclose(given, stored, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_saved_lora_loads_in_peft_and_predicts_the_same(finished, encoder):
    def load(folder):
        return PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2), folder
        )

    study, comparison, _ = finished
    stored, given = stored_and_given(study, comparison, "lora", load)
    np.testing.assert_allclose(given, stored, atol=1e-5)


def test_what_trained_in_bf16_is_stored_as_others_compute_it(encoder, toy_csv, tmp_path):
    strategies = ["head:learning_rate=0.05", "partial:layers=1", "full:learning_rate=0.01"]
    recipe = {"epochs": 1, "batch_size": 4, "max_length": 16, "precision": "bf16"}
    study = Study(toy_spec(encoder, toy_csv, strategies=strategies, recipe=recipe, seeds=[0]), tmp_path / "results")
    comparison = study.run()
    for strategy in ("head", "partial", "full"):
        stored, given = stored_and_given(
            study, comparison, strategy, AutoModelForSequenceClassification.from_pretrained
        )
        np.testing.assert_allclose(given, stored, atol=1e-5, err_msg=strategy)


def test_a_saved_tfidf_loads_in_skops(finished):
    study, comparison, _ = finished
    record = next(record for record in comparison.records if record.strategy == "tfidf")
    file = study.store.runs.path(record.run_id) / "model" / "classifier.skops"
    classifier = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
    assert classifier.predict(["good great fine", "bad awful poor"]).tolist() == [1, 0]

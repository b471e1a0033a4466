"""Multi-label data: losses, thresholds and metrics against published formulas and scikit-learn; whole studies."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn import metrics as sk
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.data.frames import multilabel_frame
from tuneoff.engine.loss import example_weights, loss_of
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.runs import RunStore, stored_labels
from tuneoff.scoring import metrics
from tuneoff.scoring.thresholds import best_thresholds, labels_from_probabilities
from tuneoff.spec.file import study_from
from tuneoff.study import Study


@pytest.mark.parametrize(("metric", "is_multilabel"), [("mcc", True), ("kappa", True), ("micro_f1", False)])
def test_metrics_that_the_data_does_not_define_are_refused(metric, is_multilabel):
    with pytest.raises(ConfigError, match=metric):
        metrics.metric_for(metric, metrics.MetricOptions(is_multilabel))


@pytest.mark.parametrize(("is_multilabel", "default"), [(True, "micro_f1"), (False, "accuracy")])
def test_the_default_metric_depends_on_the_data(is_multilabel, default):
    assert metrics.metric_for(None, metrics.MetricOptions(is_multilabel)) == default


def test_multilabel_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(1)
    labels, probabilities = (rng.random((200, 5)) < 0.3).astype(int), rng.random((200, 5))
    predicted = (probabilities > 0.6).astype(int)
    scores = metrics.evaluate(labels, predicted, probabilities)
    for average in ("macro", "weighted"):
        for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            expected = score(labels, predicted, average=average, zero_division=0)
            assert scores[f"{average}_{name}"] == pytest.approx(expected)
    assert scores["micro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="micro"))
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    log_losses = [sk.log_loss(labels[:, c], probabilities[:, c]) for c in range(5)]
    assert scores["log_loss"] == pytest.approx(np.mean(log_losses))
    assert "mcc" not in scores


def test_no_other_threshold_has_a_better_f1():
    rng = np.random.default_rng(2)
    labels = (rng.random((80, 3)) < [0.5, 0.2, 0.0]).astype(int)
    probabilities = np.clip(0.4 * labels + 0.6 * rng.random((80, 3)), 0, 1)
    thresholds = best_thresholds(labels, probabilities)
    assert thresholds is not None
    predicted = labels_from_probabilities(probabilities, thresholds)
    for c in range(2):
        candidates = np.unique(probabilities[:, c])
        f1_scores = [sk.f1_score(labels[:, c], probabilities[:, c] >= t, zero_division=0) for t in candidates]
        assert sk.f1_score(labels[:, c], predicted[:, c]) == pytest.approx(max(f1_scores))


def test_a_label_without_examples_keeps_the_threshold_of_one_half():
    labels = np.array([[1, 0], [0, 0]])
    thresholds = best_thresholds(labels, np.array([[0.9, 0.2], [0.1, 0.8]]))
    assert thresholds is not None
    assert thresholds[1] == 0.5


def test_single_labels_have_no_thresholds():
    assert best_thresholds(np.array([0, 1]), np.eye(2)) is None


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_the_multilabel_loss_is_binary_cross_entropy_of_torch(smoothing, weights):
    torch.manual_seed(0)
    labels, logits = (torch.rand(12, 4) < 0.4).long(), torch.randn(12, 4)
    labels[0] = 1
    loss = loss_of(Recipe(label_smoothing=smoothing, class_weights=weights), labels.numpy(), 4)
    positive = (12 - labels.sum(0)) / labels.sum(0) if weights == "balanced" else None
    targets = labels * (1 - smoothing) + smoothing / 2
    expected = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive)
    torch.testing.assert_close(loss.summed(logits, labels) / loss.weight(labels.numpy()), expected)


def test_the_multilabel_focal_loss_follows_its_paper():
    # Lin et al., ICCV 2017, equation 4: -(1 - p)^gamma log p, p the probability of the true value of a label
    logits, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 0]])
    loss = loss_of(Recipe(loss="focal", focal_gamma=2.0), labels.numpy(), 2)
    p = expit(np.array([2.0, 1.0]))
    assert loss.summed(logits, labels).item() == pytest.approx((-((1 - p) ** 2) * np.log(p)).mean(), rel=1e-5)


def test_balanced_sampling_weights_examples_by_their_rarest_label():
    labels = np.array([[1, 0]] * 8 + [[1, 1], [0, 0]])
    weights = example_weights(labels, 2)
    assert weights[8] == pytest.approx(9 * weights[0])
    assert weights[9] == weights[0]


@pytest.fixture(scope="module")
def multilabel_study(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("multilabel")
    multilabel_frame(160).to_parquet(folder / "data.parquet")
    spec = study_from(
        {
            "name": "multilabel",
            "data": {"source": str(folder / "data.parquet"), "validation_fraction": 0.2, "test_fraction": 0.2},
            "model": encoder,
            "strategies": [
                "probe",
                "probe:classifier=svm",
                "head",
                "lora:learning_rate=0.05",
                "full:learning_rate=0.01",
            ],
            "recipe": {
                "epochs": 8,
                "batch_size": 8,
                "max_length": 16,
                "precision": "fp32",
                "class_weights": "balanced",
            },
            "seeds": 2,
        }
    )
    study = Study(spec, folder / "results")
    return study, study.run()


@pytest.mark.slow
def test_every_kind_of_strategy_learns_multilabel_data(multilabel_study):
    _, comparison = multilabel_study
    assert comparison.failures == ()
    assert comparison.metric == "micro_f1"
    scores = {row.label: row.score for row in comparison.rows}
    assert scores["full learning_rate=0.01"] > 0.85
    assert scores["tfidf"] > 0.95
    assert scores["majority"] < 0.8


@pytest.mark.slow
def test_stored_predictions_are_probabilities_at_their_thresholds(multilabel_study):
    study, comparison = multilabel_study
    store = RunStore(study.folder / "runs")
    for record in comparison.records:
        table = store.predictions(record.run_id, "test")
        probabilities = table[["p0", "p1", "p2"]].to_numpy()
        labels, predicted = (stored_labels(table[column]) for column in ("label", "predicted"))
        assert (predicted == (probabilities >= np.float32(record.thresholds))).mean() > 0.999
        expected = sk.f1_score(labels, predicted, average="micro")
        assert record.metrics["test"]["micro_f1"] == pytest.approx(expected)


@pytest.mark.slow
def test_a_saved_model_loads_as_a_multilabel_model_of_transformers(multilabel_study):
    study, comparison = multilabel_study
    record = next(record for record in comparison.records if record.strategy == "full")
    folder = study.folder / "runs" / record.run_id / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.problem_type == "multi_label_classification"
    text = comparison.examples["text"][0]
    with torch.no_grad():
        logits = model(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")).logits[0].numpy()
    stored = RunStore(study.folder / "runs").predictions(record.run_id, "test")
    np.testing.assert_allclose(expit(logits), stored[["p0", "p1", "p2"]].to_numpy()[0], atol=1e-5)
    assert "reaches its threshold: film " in (folder / "README.md").read_text()


@pytest.mark.slow
def test_the_report_explains_multilabel_predictions(multilabel_study):
    study, _ = multilabel_study
    page = (study.folder / "report" / "index.html").read_text()
    assert "Multi-label data: every label is a yes-or-no decision of its own" in page
    assert 'data-chart="confusion-' not in page
    examples = json.loads(page.split('id="examples">')[1].split("</script>")[0])
    assert all(isinstance(ids, list) for ids in examples["labels"])


@pytest.mark.slow
def test_predictions_from_a_file_are_a_row_of_multilabel_data_too(multilabel_study, tmp_path):
    study, _ = multilabel_study
    test = study.store.test_examples()
    names = study.store.read_data()[0].label_names
    lists = [[name for name, has in zip(names, row, strict=True) if has] for row in test["label"]]
    pd.DataFrame({"text": test["text"], "labels": lists}).to_json(tmp_path / "gpt.jsonl", orient="records", lines=True)
    comparison = study.add_predictions([f"gpt={tmp_path / 'gpt.jsonl'}"]).report()
    row = next(row for row in comparison.rows if row.is_external)
    assert row.score == row.scores["accuracy"] == 1
    assert comparison.confusion[row.group].shape == (len(names), 2, 2)

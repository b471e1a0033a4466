"""Examples with several labels, or none: data, loss, thresholds, metrics, runs and report, against the field's own."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn import metrics as sk
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tiny import WORDS
from tuneoff import metrics
from tuneoff.data.dataset import DataSpec, labels_of
from tuneoff.data.load import load_dataset
from tuneoff.decide import best_thresholds, decide
from tuneoff.engine.loss import example_weights, loss_of
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError, DataError
from tuneoff.runs import RunStore
from tuneoff.spec import study_from
from tuneoff.study import Study

NAMES = ("good", "film", "rare")


def several(count, seed=0, missing=()):
    """Texts whose words say which labels they have; some have none."""
    rng = np.random.default_rng(seed)
    has = rng.random((count, 3)) < [0.5, 0.4, 0.2]
    words = np.array([WORDS[:3], WORDS[3:6]]).T  # known to the tiny encoder's tokenizer
    texts = [" ".join(words[i][0 if row[i] else 1] for i in range(3)) for row in has]
    texts = [f"{text} {' '.join(WORDS[-1 - n % 3 :])}" for n, text in enumerate(texts)]
    labels = [[name for name, given in zip(NAMES, row, strict=True) if given] for row in has]
    return pd.DataFrame({"text": texts, "labels": labels})


def load(frame, tmp_path, **options):
    path = tmp_path / "data.parquet"
    frame.to_parquet(path)
    return load_dataset(DataSpec(source=str(path), **options))


def test_lists_parted_words_and_columns_are_the_same_data(tmp_path):
    frame = several(60)
    lists = load(frame, tmp_path)
    parted = frame.assign(labels=frame["labels"].map("|".join))
    parted.to_csv(tmp_path / "parted.csv", index=False)
    columns = frame[["text"]].assign(**{name: [int(name in row) for row in frame["labels"]] for name in NAMES})
    columns.to_csv(tmp_path / "columns.csv", index=False)
    names = tuple(sorted(NAMES))
    as_words = load_dataset(DataSpec(source=str(tmp_path / "parted.csv"), label_separator="|"))
    as_columns = load_dataset(DataSpec(source=str(tmp_path / "columns.csv"), label_columns=names))
    assert lists.is_multilabel
    assert lists.label_names == as_words.label_names == as_columns.label_names == names
    assert lists.fingerprint == as_words.fingerprint == as_columns.fingerprint
    assert "an example may have several labels, or none: 1.0" in " ".join(lists.notes)


def test_lists_of_zeros_and_ones_need_names(tmp_path):
    frame = several(60)
    names = tuple(sorted(NAMES))
    rows = frame.assign(labels=[[int(name in given) for name in names] for given in frame["labels"]])
    assert load(rows, tmp_path, labels=names).fingerprint == load(frame, tmp_path).fingerprint
    with pytest.raises(DataError, match="holds lists of 3 times 0 or 1; name the labels in their order with labels"):
        load(rows, tmp_path)


def test_a_split_without_any_label_and_a_missing_one_are_refused(tmp_path):
    frame = several(60).assign(labels=lambda table: table["labels"].map("|".join))
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame.assign(labels="").to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match="split test has no label in any row; name another in its place"):
        load_dataset(DataSpec(source=str(tmp_path), label_separator="|"))
    (tmp_path / "nulls").mkdir()
    with pytest.raises(DataError, match="no label in 1 of 60 rows"):
        load(frame.assign(labels=[None, *frame["labels"][1:]]), tmp_path / "nulls", label_separator="|")


def test_carved_splits_and_subsets_keep_every_label(tmp_path):
    dataset = load(several(400), tmp_path, limits={"train": 100})
    shares = {split: labels_of(table).mean(0) for split, table in dataset.splits.items()}
    for share in shares.values():
        np.testing.assert_allclose(share, shares["train"], atol=0.12)
    assert dataset.num_examples("train") == 100


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (pd.DataFrame({"text": ["a b", "c d"] * 10, "labels": [["x"], ["y"]] * 10}), {}, "'labels' gives every example exactly one label; give one column of single labels"),
        (pd.DataFrame({"text": ["a b", "c d"] * 10, "x": [0, 1] * 10, "y": [1, 2] * 10}), {"label_columns": ("x", "y")}, "label column 'y' of split train holds 2 in row 2; columns that are labels hold 0 or 1"),
        (pd.DataFrame({"text": ["a b"] * 20, "x": [0, 1] * 10}), {"label_columns": ("x", "z")}, "column 'z' is unknown"),
        (pd.DataFrame({"text": ["a b"] * 20, "x": [0, 1] * 10, "label": [0, 1] * 10}), {"label_columns": ("x",), "label": "label"}, "label_columns does not go with label"),
        (several(20), {"labels": ("good", "film")}, "has label 'rare' in row .* outside the label set; the labels are good, film"),
        (several(20).assign(labels=[["a"]] * 10 + [None] * 10), {}, "no label in 10 of 20 rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(frame, options, message, tmp_path):
    with pytest.raises(DataError, match=message) as error:
        load(frame, tmp_path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("metric", "several_labels"), [("mcc", True), ("micro_f1", False)])
def test_a_metric_that_is_not_defined_is_refused(metric, several_labels):
    with pytest.raises(ConfigError, match=metric):
        metrics.metric_for(metric, several_labels)
    assert metrics.metric_for(None, several_labels) == ("micro_f1" if several_labels else "accuracy")


def test_metrics_are_scikit_learns():
    rng = np.random.default_rng(1)
    labels, chances = (rng.random((200, 5)) < 0.3).astype(int), rng.random((200, 5))
    predicted = (chances > 0.6).astype(int)
    found = metrics.evaluate(labels, predicted, chances)
    for average in ("macro", "weighted"):
        for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            assert found[f"{average}_{name}"] == pytest.approx(
                score(labels, predicted, average=average, zero_division=0)
            )
    assert found["micro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="micro"))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    each = [sk.log_loss(labels[:, c], chances[:, c]) for c in range(5)]
    assert found["log_loss"] == pytest.approx(np.mean(each))
    assert "mcc" not in found


def test_thresholds_have_the_best_f1_of_all():
    rng = np.random.default_rng(2)
    labels = (rng.random((80, 3)) < [0.5, 0.2, 0.0]).astype(int)
    chances = np.clip(0.4 * labels + 0.6 * rng.random((80, 3)), 0, 1)
    thresholds = best_thresholds(labels, chances)
    predicted = decide(chances, thresholds)
    for c in range(2):
        every = [sk.f1_score(labels[:, c], chances[:, c] >= t, zero_division=0) for t in np.unique(chances[:, c])]
        assert sk.f1_score(labels[:, c], predicted[:, c]) == pytest.approx(max(every))
    assert thresholds[2] == 0.5  # validation holds no example of it
    assert best_thresholds(np.array([0, 1]), np.eye(2)) is None


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_the_loss_is_torchs(smoothing, weights):
    torch.manual_seed(0)
    labels, answers = (torch.rand(12, 4) < 0.4).long(), torch.randn(12, 4)
    labels[0] = 1
    loss = loss_of(Recipe(label_smoothing=smoothing, class_weights=weights), labels.numpy(), 4)
    positive = (12 - labels.sum(0)) / labels.sum(0) if weights == "balanced" else None
    soft = labels * (1 - smoothing) + smoothing / 2
    expected = functional.binary_cross_entropy_with_logits(answers, soft, pos_weight=positive)
    torch.testing.assert_close(loss.total(answers, labels) / loss.weight(labels.numpy()), expected)


def test_the_focal_loss_is_that_of_its_paper():
    answers, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 1]])
    loss = loss_of(Recipe(loss="focal", focal_gamma=2.0), labels.numpy(), 2)
    right = expit(np.array([2.0, -1.0]))
    assert loss.total(answers, labels).item() == pytest.approx((-((1 - right) ** 2) * np.log(right)).mean(), rel=1e-5)


def test_balanced_sampling_draws_examples_by_their_rarest_label():
    labels = np.array([[1, 0]] * 8 + [[1, 1]] * 1 + [[0, 0]])
    weights = example_weights(labels, 2)
    assert weights[8] == pytest.approx(9 * weights[0])
    assert weights[9] == weights[0]


@pytest.fixture(scope="module")
def finished(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    several(160).to_parquet(folder / "data.parquet")
    spec = study_from(
        {
            "name": "several",
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
def test_every_kind_of_strategy_learns_several_labels(finished):
    _, comparison = finished
    assert comparison.failures == ()
    assert comparison.metric == "micro_f1"
    scores = {row.label: row.score for row in comparison.rows}
    assert scores["full learning_rate=0.01"] > 0.85
    assert scores["tfidf"] > 0.95
    assert scores["majority"] < 0.8


@pytest.mark.slow
def test_stored_predictions_are_what_thresholds_make_of_probabilities(finished):
    study, comparison = finished
    store = RunStore(study.folder / "runs")
    for record in comparison.records:
        table = store.predictions(record.run_id, "test")
        chances = table[["p0", "p1", "p2"]].to_numpy()
        assert (np.stack(table["predicted"]) == (chances >= np.float32(record.thresholds))).mean() > 0.999
        assert record.metrics["test"]["micro_f1"] == pytest.approx(
            sk.f1_score(np.stack(table["label"]), np.stack(table["predicted"]), average="micro")
        )


@pytest.mark.slow
def test_a_saved_model_is_a_multilabel_model_of_transformers(finished):
    study, comparison = finished
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
def test_the_report_speaks_of_several_labels(finished):
    study, _ = finished
    page = (study.folder / "report" / "index.html").read_text()
    assert "each label is a question of its own" in page
    assert 'data-chart="confusion-' not in page
    examples = json.loads(page.split('id="examples">')[1].split("</script>")[0])
    assert all(isinstance(ids, list) for ids in examples["labels"])

"""TextClassifier is a scikit-learn classifier, and its fit is a run: the same examples, options and seed give the same model."""

import pickle
import warnings
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

import tuneoff
from tests.studies import STRATEGIES, toy_spec
from tests.tiny import WORDS, toy_texts
from tuneoff import LoRA, TextClassifier, Tfidf
from tuneoff.deliver.find import find
from tuneoff.errors import ConfigError, DataError
from tuneoff.study import Study

TEXTS, LABELS = toy_texts(60, np.random.default_rng(0))
NAMES = np.where(LABELS == 1, "positive", "negative")
OPTIONS: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 4,
    "max_length": 16,
    "recipe": {"precision": "fp32"},
    "validation_fraction": 0.2,
}


class OfNumbers(TextClassifier):
    """A TextClassifier of rows of numbers, each written as a word.

    scikit-learn has no checks for classifiers of texts (their tag two_d_array is False); all of its checks fit on numbers.
    """

    def fit(self, X, y):
        if y is not None:
            X, y = validate_data(self, X, y, multi_output=True, dtype=np.float64)
        else:
            X = validate_data(self, X, dtype=np.float64)
        return super().fit(self._written(X), y)

    def predict_proba(self, X):
        check_is_fitted(self)
        return super().predict_proba(self._written(validate_data(self, X, reset=False, dtype=np.float64)))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        tags.classifier_tags.poor_score = True  # words of rounded numbers lose what the checks' thresholds need
        return tags

    @staticmethod
    def _written(rows):
        places = np.clip(np.round(2 * rows) + len(WORDS) // 2, 0, len(WORDS) - 1).astype(int)
        return [" ".join(WORDS[place] for place in row) for row in places]


# checks that do not run -> the reason
SKIPPED = {"check_array_api_input": "texts are no arrays of numbers, which the array API standard is for"}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["majority", "tfidf", "probe", "head", "lora", "full"])
def test_the_checks_of_scikit_learn_pass(strategy, encoder):
    estimator = OfNumbers(strategy, encoder, epochs=1, max_length=16, recipe={"precision": "fp32"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # checks provoke warnings
        results = check_estimator(estimator, on_skip=None, on_fail=None)
    by_status: dict[str, dict[str, str]] = {"passed": {}, "skipped": {}}
    for result in results:
        by_status.setdefault(result["status"], {})[result["check_name"]] = repr(result["exception"])
    assert by_status.keys() == {"passed", "skipped"}, by_status
    assert by_status["skipped"].keys() <= SKIPPED.keys()
    assert len(by_status["passed"]) > 40


@pytest.mark.slow
def test_a_fit_gives_the_model_of_a_run(encoder, tmp_path):
    train, test = (
        pd.DataFrame({"text": TEXTS, "label": NAMES}),
        pd.DataFrame({"text": TEXTS[:20], "label": NAMES[:20]}),
    )
    train.to_csv(tmp_path / "train.csv", index=False)
    test.to_csv(tmp_path / "test.csv", index=False)
    data = {"source": str(tmp_path), "validation_fraction": 0.2}
    study = Study(toy_spec(encoder, "", data=data, seeds=1), tmp_path / "results")
    study.run()
    for strategy in STRATEGIES:
        run = find(study.folder, strategy=strategy).runs[0]
        stored = study.store.runs.predictions(run.run_id, "test")[["p0", "p1"]].to_numpy()
        classifier = TextClassifier(strategy, encoder, **OPTIONS).fit(train["text"], train["label"])
        np.testing.assert_allclose(classifier.predict_proba(test["text"]), stored, atol=1e-6, err_msg=strategy)
        assert classifier.selected_epoch_ == run.best_epoch
        classifier.save(tmp_path / "saved" / run.run_id)
        loaded = tuneoff.load(tmp_path / "saved" / run.run_id)
        np.testing.assert_array_equal(loaded.predict(TEXTS), classifier.predict(TEXTS))
    with pytest.raises(ConfigError, match="exists; give a folder that does not"):
        classifier.save(tmp_path)


def test_it_works_in_pipelines_cross_validation_and_grid_searches(encoder):
    texts, labels = np.array(TEXTS), NAMES
    pipeline = make_pipeline(FunctionTransformer(np.char.lower), TextClassifier("tfidf"))
    assert pipeline.fit(texts, labels).score(texts, labels) > 0.9
    assert cross_val_score(TextClassifier("probe", encoder, max_length=16), texts, labels, cv=3).shape == (3,)
    search = GridSearchCV(
        TextClassifier(model=encoder, **OPTIONS), {"strategy": ["tfidf", LoRA(rank=2, learning_rate=0.05)]}, cv=2
    )
    search.fit(texts, labels)
    assert set(search.best_params_) == {"strategy"}
    assert len(search.predict(texts)) == 60


@pytest.mark.slow
def test_a_grid_search_runs_in_two_processes(encoder):
    search = GridSearchCV(
        TextClassifier("head:learning_rate=0.05", encoder, **OPTIONS), {"epochs": [1, 2]}, cv=2, n_jobs=2, scoring="neg_log_loss"
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of joblib
        assert search.fit(TEXTS, NAMES).best_score_ < 0


@pytest.mark.parametrize("strategy", ["tfidf", "lora"])
def test_a_pickle_predicts_the_same(strategy, encoder, tmp_path):
    fitted = TextClassifier(strategy, encoder, epochs=1, max_length=16).fit(TEXTS, NAMES)
    expected = fitted.predict_proba(TEXTS)
    stored = pickle.dumps(fitted)
    assert b"torch" not in stored  # the files of a model folder, no objects of other libraries
    np.testing.assert_array_equal(pickle.loads(stored).predict_proba(TEXTS), expected)
    joblib.dump(fitted, tmp_path / "model.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").predict(TEXTS), fitted.predict(TEXTS))


def test_labels_of_any_kind_come_back_as_they_were():
    for labels in (LABELS, LABELS.astype(bool), 2.0 * LABELS, list(NAMES), pd.Series(NAMES, dtype="category")):
        fitted = TextClassifier(Tfidf()).fit(TEXTS, labels)
        assert fitted.classes_.tolist() == sorted(set(np.asarray(labels).tolist()))
        assert fitted.predict(TEXTS).tolist() == np.asarray(labels).tolist()
        log_odds = fitted.decision_function(TEXTS)
        np.testing.assert_array_equal(log_odds > 0, LABELS == 1)
    three = np.arange(60) % 3
    assert TextClassifier("tfidf").fit(TEXTS, three).decision_function(TEXTS).shape == (60, 3)


def test_multi_label_data_are_rows_of_0_and_1(encoder):
    labels = np.stack([LABELS, 1 - LABELS, np.arange(60) % 3 == 0], axis=1).astype(int)
    for strategy in ("tfidf", "probe", "head"):
        fitted = TextClassifier(strategy, encoder, max_length=16).fit(TEXTS, labels)
        predicted = fitted.predict(TEXTS)
        assert (predicted.shape, predicted.dtype, set(predicted.ravel()) <= {0, 1}) == ((60, 3), labels.dtype, True)
        np.testing.assert_array_equal(fitted.decision_function(TEXTS) >= 0, predicted == 1)
        assert fitted.score(TEXTS, labels) > 0.1 or strategy == "head"
    sparse = TextClassifier("tfidf").fit(TEXTS, csr_array(labels))
    assert sparse.classes_.tolist() == [0, 1, 2]


def test_texts_and_pairs_come_in_many_forms():
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    frame = pd.DataFrame({"premise": TEXTS, "hypothesis": TEXTS[::-1]})
    expected = TextClassifier("tfidf").fit(pairs, LABELS).predict_proba(pairs)
    forms: list[Any] = [np.array(pairs), frame, frame.to_numpy()]
    for form in forms:
        np.testing.assert_array_equal(TextClassifier("tfidf").fit(form, LABELS).predict_proba(form), expected)
    single = TextClassifier("tfidf").fit(TEXTS, LABELS).predict_proba(TEXTS)
    forms = [tuple(TEXTS), np.array(TEXTS), frame["premise"], frame[["premise"]], np.array(TEXTS)[:, None]]
    for form in forms:
        np.testing.assert_array_equal(TextClassifier("tfidf").fit(form, LABELS).predict_proba(form), single)


def numpy_state_now():
    return np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002


def test_the_seed_decides_and_the_global_generators_are_left_alone(encoder):
    torch_state, numpy_state = torch.get_rng_state(), numpy_state_now()
    options: dict[str, Any] = {**OPTIONS, "epochs": 1, "validation_fraction": None}
    first, second, other = (
        TextClassifier("head", encoder, **options, random_state=seed).fit(TEXTS, NAMES).predict_proba(TEXTS)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(numpy_state_now(), numpy_state)
    drawn = TextClassifier("tfidf", random_state=np.random.RandomState(0)).fit(TEXTS, NAMES)
    assert drawn.score(TEXTS, NAMES) > 0.9


def test_without_validation_it_trains_on_everything_for_all_epochs(encoder):
    options: dict[str, Any] = {**OPTIONS, "validation_fraction": None}
    fitted = TextClassifier("head:learning_rate=0.05", encoder, **options).fit(TEXTS, NAMES)
    assert fitted.selected_epoch_ == 4
    assert TextClassifier("probe:C=0.1", encoder, max_length=16, validation_fraction=None).fit(TEXTS, NAMES)


def test_parameters_are_those_of_scikit_learn():
    estimator = TextClassifier(LoRA(rank=4), epochs=2)
    assert clone(estimator).get_params() == estimator.get_params()
    assert estimator.set_params(strategy="tfidf", recipe={"class_weights": "balanced"}).strategy == "tfidf"
    assert "epochs=2" in repr(estimator)
    with pytest.raises(NotFittedError):
        estimator.predict(["a"])
    with pytest.raises(TypeError, match="sample_weight"):
        estimator.fit(TEXTS, NAMES, sample_weight=np.ones(60))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("changes", "texts", "labels", "error", "message"),
    [
        ({"strategy": "lroa"}, TEXTS, NAMES, ConfigError, "strategy 'lroa' is unknown; did you mean 'lora'?"),
        ({"recipe": {"epoch": 3}}, TEXTS, NAMES, ConfigError, "key 'epoch' is unknown; did you mean 'epochs'?"),
        ({"recipe": {"epochs": 3}}, TEXTS, NAMES, ConfigError, "recipe has 'epochs', which is a parameter of its own"),
        ({"epochs": 0}, TEXTS, NAMES, ConfigError, "epochs: should be greater than or equal to 1, not 0"),
        ({"validation_fraction": 20}, TEXTS, NAMES, ConfigError, "validation_fraction 20 is not between 0 and 1"),
        ({"metric": "acc"}, TEXTS, NAMES, ConfigError, "metric"),
        ({"random_state": -1}, TEXTS, NAMES, ConfigError, "random_state -1 is negative"),
        ({"strategy": "probe", "validation_fraction": None}, TEXTS, NAMES, ConfigError, "probe selects one of 4 values on validation"),
        ({"strategy": "lora", "max_length": 1000}, TEXTS, NAMES, ConfigError, "max_length 1000 is above the limit"),
        ({}, "one text", NAMES, ConfigError, "texts is a str; give a list"),
        ({}, [*TEXTS[:-1], None], NAMES, DataError, r"texts\[59\] is not a text, but None"),
        ({}, np.ones((60, 4)), NAMES, DataError, r"X has shape \(60, 4\)"),
        ({}, pd.DataFrame({"text": TEXTS, "label": NAMES}), NAMES, DataError, "X has the columns text, label; give one column of texts"),
        ({}, csr_array(np.ones((60, 4))), NAMES, DataError, "X is a sparse matrix; give texts"),
        ({}, TEXTS, NAMES[:3], ValueError, "inconsistent numbers of samples"),
        ({}, TEXTS, None, DataError, "requires y to be passed"),
        ({}, TEXTS, np.linspace(0, 1, 60), DataError, "y cannot be used as labels: Unknown label type: continuous"),
        ({}, TEXTS, np.array(["a", 1] * 30, dtype=object), DataError, "y cannot be used as labels"),
        ({}, TEXTS, ["a"] * 60, DataError, "y has one class only, 'a'"),
        ({}, TEXTS, np.eye(60, 3, dtype=int) * 0 + [1, 0, 0], DataError, "y has no example of label 1"),
        ({}, TEXTS[:2], NAMES[:2], DataError, "n_samples = 2 of 2 classes are too few to hold out validation"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(changes, texts, labels, error, message, encoder):
    with pytest.raises(error, match=message) as caught:
        TextClassifier(**{"strategy": "tfidf", "model": encoder, "max_length": 16, **changes}).fit(texts, labels)
    assert "\n" not in str(caught.value)

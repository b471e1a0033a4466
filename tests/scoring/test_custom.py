"""A metric of the user's own: found in the current folder, checked, and never imported by its name alone."""

import sys

import numpy as np
import pytest

from tuneoff.errors import ConfigError
from tuneoff.scoring.custom import own_function, own_score, own_scores
from tuneoff.scoring.metrics import bounds, check_metric, direction, display_name, evaluate, metric_options, points
from tuneoff.scoring.stats import resampled_scores, score_of

LABELS, PREDICTED = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
PROBABILITIES = np.eye(2)[PREDICTED]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of metrics into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(source, name="ownmetrics"):
        (tmp_path / f"{name}.py").write_text(source)
        own_function.cache_clear()
        sys.modules.pop(name, None)
        sys.path_importer_cache.clear()
        return name

    yield write
    own_function.cache_clear()
    sys.modules.pop("ownmetrics", None)


def test_a_function_of_the_current_folder_is_a_metric(module):
    module(
        "def score(labels, predicted, probabilities):\n    return (labels == predicted).mean() * probabilities.max()"
    )
    assert own_score("ownmetrics:score", LABELS, PREDICTED, PROBABILITIES) == 0.75
    assert score_of("ownmetrics:score", LABELS, PREDICTED, PROBABILITIES) == 0.75
    options = metric_options(["no", "yes"], False, own=("ownmetrics:score", "accuracy"))
    assert evaluate(LABELS, PREDICTED, PROBABILITIES, options)["ownmetrics:score"] == 0.75


def test_the_path_of_imports_is_left_as_it_was(module):
    module("def score(labels, predicted, probabilities):\n    return 1")
    before = list(sys.path)
    own_function("ownmetrics:score")
    assert sys.path == before


def test_its_resamples_are_those_of_every_metric(module):
    module("def score(labels, predicted, probabilities):\n    return (labels == predicted).mean()")
    runs = (LABELS, [PREDICTED], [PROBABILITIES])
    own = resampled_scores("ownmetrics:score", *runs, seed=0)
    assert own.shape == (1, 200)
    assert own == pytest.approx(resampled_scores("accuracy", *runs, seed=0, resamples=200))


def test_a_name_alone_imports_nothing(module):
    module("raise SystemExit('imported')")
    assert check_metric("ownmetrics:score") == "ownmetrics:score"
    assert direction("ownmetrics:score") == 1
    assert bounds("ownmetrics:score") == (-np.inf, np.inf)
    assert points(0.5, "ownmetrics:my_score") == "0.500"
    assert display_name("ownmetrics:my_score") == "ownmetrics:my_score"
    assert "ownmetrics" not in sys.modules


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("nosuchmodule:score", "", "metric nosuchmodule:score: there is no module nosuchmodule in"),
        ("ownmetrics:scroe", "score = 1", "module ownmetrics has no scroe; define score"),
        ("ownmetrics:score", "score = 1", "module ownmetrics has score, which is no function"),
        ("ownmetrics:score", "1 / 0", r"module ownmetrics cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("ownmetrics:score", "import nosuchmodule", "module ownmetrics cannot be imported: No module named 'nosuchmodule'"),
        ("ownmetrics:score", "def score(*_): return None", "returned NoneType None; it must return a number"),
        ("ownmetrics:score", "def score(*_): return float('nan')", "returned nan; it must return a finite number"),
        ("ownmetrics:score", "def score(labels): return 1", "raised TypeError: score"),
        ("ownmetrics:score", "def score(*_): raise ValueError('too\\nbad')", "raised ValueError: too bad"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_one_line(module, name, source, message):
    module(source)
    with pytest.raises(ConfigError, match=message) as raised:
        own_score(name, LABELS, PREDICTED, PROBABILITIES)
    assert "\n" not in str(raised.value)


def test_a_resample_on_which_it_fails_is_as_the_mean_of_the_others(module):
    module("def score(labels, *_):\n    assert labels.sum(), 'no positive'\n    return labels.mean()")
    weights = np.array([[1, 1, 1, 1]] * 9 + [[2, 0, 0, 2]])
    scores = own_scores("ownmetrics:score", LABELS, PREDICTED, PROBABILITIES, weights)
    assert scores.tolist() == [0.5] * 10
    with pytest.raises(ConfigError, match="raised AssertionError: no positive, on 2 of 3 resamples"):
        own_scores("ownmetrics:score", LABELS, PREDICTED, PROBABILITIES, weights[[0, 9, 9]])

"""A metric of the user's own: a Python function score(labels, predicted, probabilities) -> float, as module:name.

Importing a module runs its code. So a name is only a name until a command of the user asks for the metric: running a
study imports it, and of a stored study only --metric module:name does (comparison/assemble.py). Higher is better.

# N examples  C classes  R resamples
"""

import functools
import importlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tuneoff.errors import ConfigError, one_line

OWN_RESAMPLES = 200  # of a function that may be slow: enough for a standard error (Efron & Tibshirani, 1993, chapter 6)
_MAX_FAILURES = 0.1  # share of the resamples on which it may fail, e.g. for lack of a class
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def is_own(metric: str) -> bool:
    """Return True for the name of a function, module:name. Nothing is imported."""
    return ":" in metric


def check_own_name(metric: str) -> str:
    """Return the name of a function. Raises ConfigError if it is not module:name. Nothing is imported."""
    if not _NAME.fullmatch(metric):
        raise ConfigError(f"metric {metric!r} is not module:name; write e.g. mymetrics:score for score in mymetrics.py")
    return metric


@functools.cache
def own_function(metric: str) -> Score:
    """Import a function, from the current folder or the environment. Raises ConfigError if that fails."""
    module_name, _, name = check_own_name(metric).partition(":")
    folder = str(Path.cwd())
    is_added = folder not in sys.path and "" not in sys.path
    if is_added:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"metric {metric}: module {module_name} cannot be imported: {error}") from error
        raise ConfigError(
            f"metric {metric}: there is no module {error.name} in {folder} or among the installed packages"
        ) from error
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"metric {metric}: module {module_name} cannot be imported ({reason})") from error
    finally:
        if is_added and folder in sys.path:
            sys.path.remove(folder)
    function = getattr(module, name, None)
    if not callable(function):
        problem = f"has no {name}" if function is None else f"has {name}, which is no function"
        raise ConfigError(
            f"metric {metric}: module {module_name} {problem}; define score(labels, predicted, probabilities)"
        )
    return function


def own_score(metric: str, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> float:
    """Score predictions. Raises ConfigError if the function raises, or returns no finite number."""
    function = own_function(metric)
    try:
        value = function(labels, predicted, probabilities)
    except Exception as error:
        raise ConfigError(f"metric {metric} raised {type(error).__name__}: {one_line(error)}") from error
    try:
        score = float(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"metric {metric} returned {type(value).__name__} {value!r:.60}; it must return a number"
        ) from None
    if not math.isfinite(score):
        raise ConfigError(f"metric {metric} returned {score}; it must return a finite number")
    return score


def own_scores(
    metric: str, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Score each resample. weights: how often each example counts, (R, N) -> (R,).

    Where the function fails, for lack of a class, the mean of the other resamples stands. Raises ConfigError if it
    fails on more than a tenth of them.
    """
    scores, failure = np.full(len(weights), np.nan), None
    for index, counts in enumerate(weights):
        rows = np.repeat(np.arange(len(labels)), counts.astype(np.int64))
        try:
            scores[index] = own_score(metric, labels[rows], predicted[rows], probabilities[rows])
        except ConfigError as error:
            failure = error
    is_failed = np.isnan(scores)
    if failure and is_failed.mean() > _MAX_FAILURES:
        raise ConfigError(f"{failure}, on {is_failed.sum()} of {len(scores)} resamples of the examples") from failure
    return np.where(is_failed, np.nanmean(scores), scores)

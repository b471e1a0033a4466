"""Fits of scikit-learn's classifiers: timed without imports."""

import subprocess
import sys

_SCRIPT = """
import sys
import numpy as np
import tuneoff.execute.fit
from tuneoff.scoring.metrics import metric_options
from tuneoff.scoring.selection import Selection
from tuneoff.spec.strategy import parse_strategy
from tuneoff.strategies import STRATEGIES

before = set(sys.modules)
texts, features = ["good", "bad"] * 20, np.random.default_rng(0).normal(size=(40, 4))
for labels in (np.array([0, 1] * 20), np.array([[0, 1], [1, 0]] * 20)):
    for name in ("majority", "tfidf"):
        row = STRATEGIES[name]
        row.apply(texts, labels, parse_strategy(name), None).predict_proba(texts)
    for name in ("probe", "probe:classifier=svm"):
        row, validation = STRATEGIES["probe"], (features, labels)
        selection = Selection("accuracy", metric_options("ab", labels.ndim == 2))
        fitted = row.apply(features, labels, validation, parse_strategy(name), selection, None)
        row.probabilities(fitted, features)
print(sorted(name for name in set(sys.modules) - before if name.startswith(("sklearn", "scipy"))))
"""


def test_no_import_is_timed_with_a_fit():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

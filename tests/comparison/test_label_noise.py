"""The verdict if doubtful labels are wrong: scores by hand, and a pick that stands or changes."""

import numpy as np
import pandas as pd

from tests.stored import stored_study
from tuneoff.scoring.metrics import evaluate


def comparison_of(tmp_path, **changes):
    return stored_study(tmp_path, {"tfidf": 0.7, "probe": 0.8, "full": 0.9}, num_test=300, **changes)


def test_scores_without_the_doubtful_examples_and_with_the_likely_labels(tmp_path):
    from tests.stored import stored_study as study

    comparison = study(tmp_path, {"probe": 0.8, "full": 0.9}, num_test=300)
    del comparison, np, pd, evaluate

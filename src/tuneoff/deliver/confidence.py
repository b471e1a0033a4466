"""What to expect of a classifier that abstains below a confidence: share answered and accuracy, from validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from tuneoff.deliver.find import Found
from tuneoff.runs import RunRecord, StudyStore, stored_labels
from tuneoff.scoring.stats import LEVEL
from tuneoff.scoring.thresholds import labels_from_probabilities


@dataclass(frozen=True)
class Answered:
    """Expected of texts like those that it was measured on."""

    share: float  # of the texts whose confidence reaches the threshold
    accuracy: float  # on these; NaN if there are none
    interval: tuple[float, float]  # 95 % confidence interval of the accuracy (Clopper & Pearson, 1934)
    examples: int  # that it was measured on


@dataclass(frozen=True)
class Evidence:
    """Confidence and correctness of predictions of examples that the models were not trained on."""

    confidence: np.ndarray  # (N,)
    is_right: np.ndarray  # (N,)
    source: str  # "validation", or "the folds"

    def at(self, threshold: float) -> Answered:
        """Return what to expect if predictions below a confidence are left out."""
        is_answered = self.confidence >= threshold
        count, right = int(is_answered.sum()), int(self.is_right[is_answered].sum())
        low, high = proportion_confint(right, count, alpha=1 - LEVEL, method="beta") if count else (0.0, 1.0)
        return Answered(
            count / len(self.confidence), right / count if count else np.nan, (low, high), len(self.is_right)
        )


def evidence(found: Found) -> Evidence | None:
    """Read the predictions that show what to expect of some models; None for a model outside a study.

    Of several models, the mean probabilities, as they are used. With folds, the predictions of each fold by models that
    were trained on the others. Validation examples also chose the best epoch, which makes them look slightly better.
    """
    if found.store is None or not found.runs:
        return None
    split = "test" if found.is_final else "validation"
    labels, predicted, probabilities = _read(found.runs, found.store, split, are_joined=found.is_final)
    confidence = probabilities[np.arange(len(labels)), predicted]
    return Evidence(confidence, predicted == labels, "the folds" if found.is_final else split)


def _read(
    runs: Sequence[RunRecord], store: StudyStore, split: str, are_joined: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, (N,), predicted ones, (N,), and probabilities (N, C), of runs on the same examples their means."""
    tables = [store.runs.predictions(record.run_id, split) for record in runs]
    names = [name for name in tables[0].columns if name[0] == "p" and name[1:].isdecimal()]
    labels = [stored_labels(table["label"]) for table in tables]
    probabilities = [table[names].to_numpy(np.float64) for table in tables]
    are_same = all(table["example"].equals(tables[0]["example"]) for table in tables)
    if are_same and not are_joined:
        mean = np.mean(probabilities, axis=0)
        thresholds = np.array(runs[0].thresholds) if runs[0].thresholds else None
        return labels[0], labels_from_probabilities(mean, thresholds), mean
    predicted = np.concatenate([stored_labels(table["predicted"]) for table in tables])
    return np.concatenate(labels), predicted, np.concatenate(probabilities)

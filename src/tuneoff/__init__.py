"""Tuneoff: which way of fine-tuning should you use, what does it cost, and is the difference real?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneoff.api import compare
    from tuneoff.comparison.result import Comparison
    from tuneoff.comparison.rows import Verdict
    from tuneoff.datasets import overview
    from tuneoff.deliver.classifier import Classifier
    from tuneoff.deliver.embed import embed
    from tuneoff.deliver.find import load
    from tuneoff.errors import TuneoffError
    from tuneoff.estimator import TextClassifier
    from tuneoff.spec.study import StudySpec
    from tuneoff.strategies import Adapter, BitFit, Full, Head, LoRA, Majority, Partial, Probe, Tfidf, Untrained
    from tuneoff.study import Study

__version__ = "0.1.0"

# imported when first used: torch and transformers take seconds, and `tuneoff --help` needs neither
_HOMES = {
    "tuneoff.api": ("compare",),
    "tuneoff.datasets": ("overview",),
    "tuneoff.study": ("Study",),
    "tuneoff.spec.study": ("StudySpec",),
    "tuneoff.comparison.result": ("Comparison", "Verdict"),
    "tuneoff.deliver.classifier": ("Classifier",),
    "tuneoff.deliver.embed": ("embed",),
    "tuneoff.deliver.find": ("load",),
    "tuneoff.errors": ("TuneoffError",),
    "tuneoff.estimator": ("TextClassifier",),
    "tuneoff.strategies": (
        "Adapter",
        "BitFit",
        "Full",
        "Head",
        "LoRA",
        "Majority",
        "Partial",
        "Probe",
        "Tfidf",
        "Untrained",
    ),
}

__all__ = [
    "Adapter",
    "BitFit",
    "Classifier",
    "Comparison",
    "Full",
    "Head",
    "LoRA",
    "Majority",
    "Partial",
    "Probe",
    "Study",
    "StudySpec",
    "TextClassifier",
    "Tfidf",
    "TuneoffError",
    "Untrained",
    "Verdict",
    "compare",
    "embed",
    "load",
    "overview",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'tuneoff' has no attribute {name!r}")

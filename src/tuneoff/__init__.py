"""Tuneoff: which way of fine-tuning should you use, what does it cost, and is the difference real?"""

from tuneoff.compare.comparison import Comparison, Verdict
from tuneoff.errors import TuneoffError
from tuneoff.spec import StudySpec
from tuneoff.strategies import Adapter, BitFit, Full, Head, LoRA, Majority, Partial, Probe, Tfidf, Untrained
from tuneoff.study import Study, compare

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "BitFit",
    "Comparison",
    "Full",
    "Head",
    "LoRA",
    "Majority",
    "Partial",
    "Probe",
    "Study",
    "StudySpec",
    "Tfidf",
    "TuneoffError",
    "Untrained",
    "Verdict",
    "compare",
]

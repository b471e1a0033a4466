"""Small real studies for tests: eight strategies on sixty separable texts, trained in worker processes."""

from tuneoff.spec.file import study_from
from tuneoff.study import Study

STRATEGIES = [
    "majority",
    "tfidf",
    "untrained",
    "probe",
    "head:learning_rate=0.05",
    "lora:learning_rate=0.05",
    "adapter:reduction=2",
    "full:learning_rate=0.01",
]


def toy_spec(encoder, toy_csv, **changes):
    """A study of the toy texts with two seeds."""
    options = {
        "name": "toy",
        "data": {"source": str(toy_csv), "validation_fraction": 0.2, "test_fraction": 0.2},
        "model": encoder,
        "baselines": False,
        "strategies": STRATEGIES,
        "recipe": {"epochs": 4, "batch_size": 4, "max_length": 16, "precision": "fp32"},
        "seeds": [0, 1],
    }
    return study_from({**options, **changes})


def changed(study, **changes):
    """The same study in the same folder, with other options."""
    return Study(study_from({**study.spec.model_dump(mode="json"), **changes}), study.folder)

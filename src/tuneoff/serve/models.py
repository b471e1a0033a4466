"""Models that the page classifies with: of a study every strategy whose model is stored, the recommended one first."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from tuneoff.deliver.attribution import Attribution, Explain, load_attribution
from tuneoff.deliver.classifier import Classifier, load_classifier
from tuneoff.deliver.find import Found, find
from tuneoff.errors import ConfigError, ModelError, StoreError
from tuneoff.files import read_json


@dataclass(frozen=True)
class ServedModel:
    """One strategy's model, loaded."""

    label: str  # as on the leaderboard
    is_recommended: bool
    classifier: Classifier
    folder: Path
    encoder: str | None = field(default=None, repr=False)

    @functools.cached_property
    def _explain(self) -> Explain:
        return load_attribution(self.folder, self.classifier.saved, self.encoder)

    def attribution(self, text: pa.Table, label: int) -> Attribution:
        """Return the attributions of the words of one text for a label. Raises ConfigError if there are none."""
        return self._explain(text, label)

    def describe(self) -> dict[str, Any]:
        """Return what a reader is told about it."""
        saved = self.classifier.saved
        return {"strategy": self.label, "recommended": self.is_recommended, "run": saved.run_id, "encoder": saved.model}


def served_models(name: str | Path, encoder: str | None = None) -> list[ServedModel]:
    """Load the models of a study's folder, or the one of a run's or a model's folder.

    encoder: place of the pretrained encoder of probes and adapters, if it is not where it was at training.
    Raises StoreError or ModelError, in one line, if no model can be loaded.
    """
    path = Path(name).expanduser()
    if not (path / "study.yaml").is_file():
        return [_served(find(path), True, encoder)]
    if not (path / "comparison.json").is_file():
        find(path)  # raises, because the study is not finished
    compared = read_json(path / "comparison.json")
    recommended = (compared["verdict"] or {}).get("recommended")
    models, skipped = [], []
    for row in compared["leaderboard"]:
        try:
            found = find(path, strategy=row["label"], encoder=row["model"])
            models.append(_served(found, row["group"] == recommended, encoder))
        except (ConfigError, StoreError, ModelError) as error:
            skipped.append(error)
    if not models:
        raise skipped[0]
    return sorted(models, key=lambda model: not model.is_recommended)


def _served(found: Found, is_recommended: bool, encoder: str | None) -> ServedModel:
    (folder,) = found.folders
    classifier = load_classifier([folder], encoder)
    # a model's folder outside a study has no label
    label = found.label if found.runs else classifier.saved.strategy.label
    return ServedModel(label, is_recommended, classifier, folder, encoder)

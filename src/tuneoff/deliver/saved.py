"""Description of a saved model, tuneoff.json in its folder: all that predicting needs besides the weights."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tuneoff import __version__
from tuneoff.data.spec import TruncationPolicy
from tuneoff.errors import StoreError
from tuneoff.files import read_json, write_json
from tuneoff.runs import DIVERGED, OK, RunRecord, RunStore, StudyStore
from tuneoff.spec.run import RunSpec
from tuneoff.spec.strategy import AnyStrategy

DESCRIPTION = "tuneoff.json"
FORMAT = 1  # of the description; a larger one is of a later version


class SavedModel(BaseModel):
    """What a saved model is, apart from its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    version: str = __version__  # of Tuneoff
    run_id: str
    repeat: str  # "seed 0"
    strategy: AnyStrategy  # with the options that a search or the folds chose
    model: str | None  # the encoder; None for a strategy without one
    model_fingerprint: str | None  # of the pretrained encoder
    label_names: tuple[str, ...]  # in the order of their ids
    is_multilabel: bool
    is_pair: bool
    truncation: TruncationPolicy
    thresholds: tuple[float, ...] | None = None  # of each label, for multi-label data; of two classes the second's

    @classmethod
    def of_run(
        cls, record: RunRecord, label_names: tuple[str, ...], is_multilabel: bool, is_pair: bool
    ) -> "SavedModel":
        """Describe the model of a run."""
        spec = RunSpec.model_validate(record.spec)
        return cls(
            run_id=record.run_id,
            repeat=record.repeat,
            strategy=spec.config,
            model=spec.model,
            model_fingerprint=spec.model_fingerprint,
            label_names=label_names,
            is_multilabel=is_multilabel,
            is_pair=is_pair,
            truncation=spec.recipe.truncation,
            thresholds=tuple(record.thresholds) if record.thresholds else None,
        )

    def write(self, folder: Path) -> None:
        """Store the description in a model's folder."""
        write_json(folder / DESCRIPTION, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> "SavedModel":
        """Read the description of the model in a folder. Raises StoreError, in one line."""
        if not folder.is_dir():
            raise StoreError(f"model folder {str(folder)!r} does not exist")
        path = folder / DESCRIPTION
        if not path.is_file():
            return _of_earlier_version(folder)
        stored = read_json(path)
        if isinstance(stored, dict) and isinstance(stored.get("format"), int) and stored["format"] > FORMAT:
            raise StoreError(
                f"{path} was written by Tuneoff {stored.get('version')} in format {stored['format']}, and this "
                f"version, {__version__}, reads up to format {FORMAT}; update tuneoff"
            )
        try:
            return cls.model_validate(stored)
        except (ValidationError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(f"{path} was altered and cannot be read ({reason}); restore it, or run again") from error


def _of_earlier_version(folder: Path) -> SavedModel:
    """Describe a model that an earlier version stored, from its run and its study."""
    runs = folder.parent.parent
    if not (folder.parent / "run.json").is_file() or not (runs.parent / "data.json").is_file():
        raise StoreError(f"folder {str(folder)!r} holds no {DESCRIPTION}; give a study, or the folder of a run's model")
    record, (data, _, _) = RunStore(runs).record(folder.parent.name), StudyStore(runs.parent).read_data()
    return SavedModel.of_run(record, data.label_names, data.is_multilabel, data.is_pair)


def model_folder_of(path: Path) -> Path:
    """Return the folder of a model from itself or from its run's folder. Raises StoreError for a run without one."""
    if (path / DESCRIPTION).is_file() or not (path / "run.json").is_file():
        if path.name.startswith(".unfinished-"):
            raise StoreError(f"run {str(path)!r} is unfinished; run the study again, and use the run that it stores")
        return path
    record = RunStore(path.parent).record(path.name)
    if record.status != OK:
        what = "diverged" if record.status == DIVERGED else "failed"
        raise StoreError(f"run {record.run_id} {what}, so that it has no model: {record.reason}")
    if not (path / "model").is_dir():
        raise StoreError(f"run {record.run_id} has no stored model; run the study again with --keep all")
    return path / "model"

"""The store of a study: its runs and searches. A run is stored whole or not at all."""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tuneoff.checksums import resealing, update_manifest, write_manifest
from tuneoff.costs import current_keys
from tuneoff.data.describe import DataDescription
from tuneoff.errors import StoreError, one_line
from tuneoff.files import (
    naming_full_disk,
    read_arrow,
    read_json,
    read_table,
    sync,
    sync_folder,
    write_json,
    write_table,
)
from tuneoff.search.race_record import RaceRecord
from tuneoff.search.record import SearchRecord
from tuneoff.seeds import cell_name
from tuneoff.trainer_logs import TrainerLog

if TYPE_CHECKING:
    import pandas as pd  # slow to import: the command line reads no table

T = TypeVar("T")
_FINGERPRINT = b"fingerprint"  # key in the metadata of a file of predictions
OK, FAILED, DIVERGED = STATUSES = "ok", "failed", "diverged"
_ELSEWHERE = ".elsewhere"  # end of the name of a file: the checkpoint is on a machine of a cluster
_ID = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # of a run or a search: names of files, never a path


@dataclass(frozen=True)
class RunRecord:
    """Specification, scores and costs of one run. Everything here is JSON."""

    run_id: str
    group: str  # shared by the runs of all seeds or folds
    strategy: str
    label: str  # the strategy with its options
    model: str | None
    seed: int
    status: str  # ok | failed | diverged
    error: str | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # split -> metric -> score
    per_class: dict[str, list[dict[str, str | float]]] = field(default_factory=dict)  # split -> ClassScores, as JSON
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)  # split -> true x predicted
    costs: dict[str, float] = field(default_factory=dict)  # keys of costs.py, and peak_operations_per_second
    parameters: dict[str, int] = field(default_factory=dict)  # trainable, added, head, total
    train_examples: int | None = None
    thresholds: list[float] | None = None  # of each label, for multi-label data; of two classes the second's
    best_epoch: int | None = None
    best_step: int | None = None  # of a run that was validated within epochs too
    selected_options: dict[str, Any] = field(default_factory=dict)  # of the strategy, selected on validation
    movement: dict[str, Any] = field(default_factory=dict)  # of the encoder's representations: engine/movement.py
    micro_batch: int | None = None  # examples of a step that were computed at once, if lack of memory made them fewer
    notes: list[str] = field(default_factory=list)  # what happened to the run beside its training, in sentences
    divergence: dict[str, Any] = field(default_factory=dict)  # of a diverged run: step, and last finite values
    spec: dict[str, Any] = field(default_factory=dict)  # the RunSpec
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str | int | None] = field(default_factory=dict)
    finished_at: str = ""  # UTC, ISO 8601

    @property
    def reason(self) -> str:
        """Return the last line of the error."""
        return ((self.error or "").strip().splitlines() or ["no reason was stored"])[-1]

    @property
    def sources(self) -> dict[str, int]:
        """Seed of each source of randomness that varies apart; empty if all vary together."""
        return self.spec.get("sources", {})

    @property
    def is_subset(self) -> bool:
        """True if the run trained on a subset of train, for a learning curve."""
        return bool(self.spec.get("subset"))

    @property
    def repeat(self) -> str:
        """Name among the runs of its group: "seed 0", "seeds head 0, order 1" or "fold 0"."""
        if self.spec.get("final"):
            return "on all labelled examples"
        if self.sources:
            return cell_name(self.sources)
        return f"{'fold' if self.spec.get('fold') else 'seed'} {self.seed}"


@dataclass(frozen=True)
class RunPredictions:
    """Predictions of one run for every example that it is validated and tested on."""

    labels: dict[str, np.ndarray]  # split -> (N,) ids, or (N, C) of 0 and 1
    predicted: dict[str, np.ndarray]  # the same
    probabilities: dict[str, np.ndarray]  # split -> (N, C)
    # split -> (N,) rows of the stored split, for a run on a fold: of train
    examples: dict[str, np.ndarray] = field(default_factory=dict)

    def table(self) -> pa.Table:
        """Return columns split, example, label, predicted, and p0, p1, ... one per class."""
        parts = []
        for split, labels in self.labels.items():
            probabilities = self.probabilities[split].astype(np.float32)
            columns = {
                "split": pa.array([split] * len(labels)),
                "example": self.examples.get(split, np.arange(len(labels))),
                "label": _label_column(labels),
                "predicted": _label_column(self.predicted[split]),
                **{f"p{index}": probabilities[:, index] for index in range(probabilities.shape[1])},
            }
            parts.append(pa.table(columns))
        return pa.concat_tables(parts)


@dataclass(frozen=True)
class TestPredictions:
    """Predictions of one run for a test set from elsewhere."""

    __test__ = False  # not a test of pytest's

    predictions: RunPredictions  # of one split
    fingerprint: str  # of the test set
    seconds: float


def _label_column(labels: np.ndarray) -> np.ndarray | pa.FixedSizeListArray:
    """Return labels as an Arrow column: numbers, or lists of 0 and 1."""
    if labels.ndim == 1:
        return labels
    return pa.FixedSizeListArray.from_arrays(pa.array(labels.ravel().astype(np.uint8)), labels.shape[1])


def stored_labels(column: "pd.Series") -> np.ndarray:
    """Return a stored label column as an array, (N,) ids or (N, C) of 0 and 1."""
    return np.stack(list(column)).astype(np.int64) if column.dtype == object else column.to_numpy()


class RunStore:
    """The folder of a study's runs. A run exists when its folder has its final name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run_id: str) -> Path:
        """Return the folder of a run, which need not exist yet."""
        return self.folder / run_id

    def checkpoint(self, run_id: str) -> Path:
        """Return the file of the checkpoint of a run that is not finished (engine/resume.py); it need not exist."""
        return self.folder / ".checkpoints" / f"{run_id}.safetensors"

    def note_trained_elsewhere(self, run_id: str) -> None:
        """Note that a machine of a cluster keeps the training of a run that is not finished."""
        path = self.checkpoint(run_id).with_suffix(_ELSEWHERE)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def is_trained(self, run_id: str) -> bool:
        """Return True if a run that is not finished has a checkpoint, here or on a machine of a cluster."""
        path = self.checkpoint(run_id)
        return path.is_file() or path.with_suffix(_ELSEWHERE).is_file()

    def is_done(self, run_id: str) -> bool:
        """Return True unless the run is missing or failed. A diverged run is done: it would diverge again."""
        return self.path(run_id).is_dir() and self.record(run_id).status != FAILED

    def record(self, run_id: str) -> RunRecord:
        """Read a record. Raises StoreError, in one line."""
        path = self.path(run_id) / "run.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            record = RunRecord(**{**stored, "costs": current_keys(stored.get("costs", {}))})
            if record.status not in STATUSES:
                raise ValueError(f"status {record.status!r} is none of {', '.join(STATUSES)}")
            return record
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"run {run_id} cannot be read ({error}); {self.remedy}") from error

    @property
    def remedy(self) -> str:
        """What to do about a damaged run."""
        return remedy(self.folder.parent)

    def has_model(self, run_id: str) -> bool:
        """Return True if the model of a run is stored."""
        return (self.path(run_id) / "model").is_dir()

    def remove_model(self, run_id: str) -> None:
        """Remove the model of a run and nothing else; its size stays in the record."""
        folder = self.path(run_id) / "model"
        if Path(run_id).name != run_id or folder.is_symlink() or not folder.is_dir():
            return
        update_manifest(self.path(run_id), removed=["model/"])  # before it: a model that should be there is damage
        # renamed first: an interrupted removal leaves no half of a model
        removed = self.folder / f".unfinished-{run_id}-{os.getpid()}"
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def remove_unfinished(self) -> None:
        """Remove temporary folders of an interrupted study, and checkpoints of runs that are stored or elsewhere."""
        for folder in self.folder.glob(".unfinished-*"):
            shutil.rmtree(folder, ignore_errors=True)
        for path in self.folder.glob(".checkpoints/*"):
            is_left = path.name.startswith(".unfinished-") or path.suffix == _ELSEWHERE
            if is_left or self.is_done(path.name.removesuffix(".safetensors")):
                path.unlink(missing_ok=True)

    def remove_checkpoints(self) -> None:
        """Remove every checkpoint: of a study that has ended, no run goes on."""
        shutil.rmtree(self.folder / ".checkpoints", ignore_errors=True)

    def predictions(self, run_id: str, split: str) -> "pd.DataFrame":
        """Read a run's predictions for one split. Raises StoreError, in one line."""
        path = self.path(run_id) / "predictions.parquet"
        try:
            return pyarrow.parquet.read_table(path, filters=[("split", "=", split)]).to_pandas()
        except (OSError, pa.ArrowException, ValueError) as error:
            raise StoreError(f"{path} cannot be read ({one_line(error)}); {self.remedy}") from error

    def missing_tests(self, run_id: str, tests: Mapping[str, str]) -> list[str]:
        """Return the test sets that a stored run has not predicted. tests: name -> fingerprint."""
        missing = []
        for name, fingerprint in tests.items():
            path = self._test_file(self.path(run_id), name)
            try:
                metadata = (pyarrow.parquet.read_schema(path).metadata or {}) if path.is_file() else {}
            except (OSError, pa.ArrowException):  # damaged: it is predicted again
                metadata = {}
            if metadata.get(_FINGERPRINT) != fingerprint.encode():
                missing.append(name)
        return missing

    def test_predictions(self, run_id: str, name: str) -> "pd.DataFrame":
        """Read a run's predictions for a test set from elsewhere."""
        return read_table(self._test_file(self.path(run_id), name))

    def write_tests(self, folder: Path, tests: Mapping[str, "TestPredictions"]) -> None:
        """Store predictions for test sets from elsewhere in a run's folder."""
        for name, test in tests.items():
            path = self._test_file(folder, name)
            path.parent.mkdir(exist_ok=True)
            stored_name = path.relative_to(folder).as_posix()
            update_manifest(folder, removed=[stored_name])
            table = test.predictions.table()
            facts = {_FINGERPRINT: test.fingerprint.encode(), b"seconds": f"{test.seconds:.3f}".encode()}
            write_table(table.replace_schema_metadata(facts), path)
            update_manifest(folder, added=[stored_name])

    @staticmethod
    def _test_file(folder: Path, name: str) -> Path:
        return folder / "tests" / f"{name}.parquet"

    def history(self, run_id: str) -> "pd.DataFrame":
        """Read a run's history: rows of kind step, epoch, and evaluation, of validations within epochs too.

        Empty for a run without training steps.
        """
        path = self.path(run_id) / "history.parquet"
        import pandas as pd

        try:
            return pd.read_parquet(path) if path.is_file() else pd.DataFrame()
        except (OSError, pa.ArrowException, ValueError) as error:
            raise StoreError(f"{path} cannot be read ({one_line(error)}); {self.remedy}") from error

    def write(
        self,
        record: RunRecord,
        predictions: RunPredictions | None = None,
        history: "pd.DataFrame | None" = None,
        save_model: Callable[[Path], None] | None = None,
        keep_model: bool = True,
        tests: Mapping[str, "TestPredictions"] | None = None,
    ) -> RunRecord:
        """Store a run and return the stored record.

        Replaces a failed run, one whose model is gone, and one that lacks a test set; no other. keep_model: False to
        measure the size of the model only. tests: predictions for test sets from elsewhere, by their names.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".unfinished-{record.run_id}-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            with naming_full_disk(self.folder):
                self._write_files(unfinished, record, predictions, history, save_model, keep_model)
                self.write_tests(unfinished, tests or {})
                write_manifest(unfinished)
                for path in unfinished.rglob("*"):
                    sync_folder(path) if path.is_dir() else sync(path)
                sync_folder(unfinished)
            target = self.path(record.run_id)
            if target.exists():
                stored = self.record(record.run_id)
                brings_model = (unfinished / "model").is_dir() and not self.has_model(record.run_id)
                fingerprints = {name: test.fingerprint for name, test in (tests or {}).items()}
                brings_tests = bool(self.missing_tests(record.run_id, fingerprints))
                if stored.status != FAILED and not brings_model and not brings_tests:
                    return stored  # another process was faster
                shutil.rmtree(target)
            unfinished.rename(target)
            sync_folder(self.folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return record

    def adopt(self, run_id: str, write: Callable[[Path], None]) -> None:
        """Store a run that was made on another machine, in place of a stored one. write: writes its files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".unfinished-{run_id}-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            with naming_full_disk(self.folder):
                write(unfinished)
            shutil.rmtree(self.path(run_id), ignore_errors=True)
            unfinished.rename(self.path(run_id))
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    @staticmethod
    def _write_files(
        folder: Path,
        record: RunRecord,
        predictions: RunPredictions | None,
        history: "pd.DataFrame | None",
        save_model: Callable[[Path], None] | None,
        keep_model: bool,
    ) -> None:
        if save_model is not None:
            (folder / "model").mkdir()
            save_model(folder / "model")
            size = sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file())
            record.costs["model_bytes"] = size
            if not keep_model:
                shutil.rmtree(folder / "model")
        if predictions is not None:
            pyarrow.parquet.write_table(predictions.table(), folder / "predictions.parquet", compression="zstd")
        if history is not None and len(history):
            history.to_parquet(folder / "history.parquet")
        text = json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "run.json").write_text(text, encoding="utf-8")


class SearchStore:
    """The folder of a study's hyperparameter searches, one JSON file each, rewritten after every trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, search_id: str) -> Path:
        """Return the file of a search, which need not exist yet."""
        return self.folder / f"{search_id}.json"

    def open(self, new: SearchRecord) -> SearchRecord:
        """Return the stored search with the id of `new`, or `new` itself if there is none."""
        return self.read(new.search_id) if self.path(new.search_id).is_file() else new

    def read(self, search_id: str) -> SearchRecord:
        """Read a stored search. Raises StoreError, in one line."""
        path = self.path(search_id)
        return _parsed(path, SearchRecord.from_json, remedy(self.folder.parent))

    def write(self, record: SearchRecord) -> None:
        """Store a search."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with resealing(self.path(record.search_id)):
            write_json(self.path(record.search_id), asdict(record))


@dataclass(frozen=True)
class Session:
    """One call that ran jobs of a study, whether it was interrupted or not."""

    runs: int  # finished ones
    workers: int
    threads: int
    joules: float | None  # of the machine's processors, other work included; None where they cannot be read
    seconds: float
    gpu_joules: float | None = None  # of the machine's GPUs, likewise


@dataclass(frozen=True)
class StoredTest:
    """A test set from elsewhere, as a study has stored it."""

    name: str
    source: str
    fingerprint: str
    examples: int
    labels: list[int]  # examples of each label
    notes: list[str]


def _tests(stored: Any) -> list[StoredTest]:
    return [StoredTest(**test) for test in stored]


@dataclass(frozen=True)
class StudyStore:
    """The folder of a study: its runs, its searches, the test split, and what describes them."""

    folder: Path

    @property
    def runs(self) -> RunStore:
        """The runs."""
        return RunStore(self.folder / "runs")

    @property
    def searches(self) -> SearchStore:
        """The hyperparameter searches."""
        return SearchStore(self.folder / "searches")

    @property
    def log(self) -> Path:
        """Standard output and error of all jobs."""
        return self.folder / "workers.log"

    def write_data(
        self, data: DataDescription, test: pa.Table, run_ids: Sequence[str], search_ids: Sequence[str]
    ) -> None:
        """Store the description of the data, the scored examples, and the ids of the grid's runs and searches.

        The final run of a study with folds stays listed until write_final() replaces it.
        """
        path = self.folder / "data.json"
        final = read_json(path).get("final", []) if path.is_file() else []
        listed = {"runs": list(run_ids), "searches": list(search_ids), "final": final}
        self._write_json("data.json", {**data.to_json(), **listed})
        self._write_table("test.parquet", test)

    def read_data(self) -> tuple[DataDescription, list[str], list[str]]:
        """Read the description of the data, and the ids of the stored runs and searches of the grid.

        Raises StoreError, in one line.
        """

        def parse(stored: Any) -> tuple[DataDescription, list[str], list[str]]:
            _ids(stored.get("final", ()))
            return DataDescription.from_json(stored), _ids(stored["runs"]), _ids(stored.get("searches", ()))

        description, run_ids, search_ids = _parsed(self.folder / "data.json", parse, remedy(self.folder))
        run_ids = [run_id for run_id in run_ids if self.runs.path(run_id).is_dir()]
        search_ids = [search_id for search_id in search_ids if self.searches.path(search_id).is_file()]
        return description, run_ids, search_ids

    def num_missing(self) -> tuple[int, int]:
        """Return how many runs of the grid are not stored, and how many there are. Raises StoreError."""
        listed = _parsed(self.folder / "data.json", lambda stored: _ids(stored["runs"]), remedy(self.folder))
        return sum(not self.runs.path(run_id).is_dir() for run_id in listed), len(listed)

    def write_final(self, run_ids: Sequence[str]) -> None:
        """Store the ids of the runs on all labelled examples, after write_data()."""
        self._write_json("data.json", {**read_json(self.folder / "data.json"), "final": list(run_ids)})

    def read_final(self) -> list[RunRecord]:
        """Read the run on all labelled examples, of which there is at most one."""
        path = self.folder / "data.json"
        listed = _parsed(path, lambda stored: _ids(stored.get("final", ())), remedy(self.folder))
        return [self.runs.record(run_id) for run_id in listed if self.runs.path(run_id).is_dir()]

    def test_examples(self) -> "pd.DataFrame | None":
        """Read the examples that are scored; None for a study of an earlier version, which did not store them."""
        path = self.folder / "test.parquet"
        return read_table(path) if path.is_file() else None

    def test_table(self) -> pa.Table:
        """Read the test split as an Arrow table. Raises StoreError if it was not stored."""
        return read_arrow(self.folder / "test.parquet")

    def has_predictions(self, name: str) -> bool:
        """Return True if predictions from a file are stored under a name."""
        return self._predictions_file(name).is_file()

    def read_predictions(self, name: str) -> pa.Table:
        """Read stored predictions from a file: a table for match_predictions. Raises StoreError."""
        return read_arrow(self._predictions_file(name))

    def write_predictions(self, tables: Mapping[str, pa.Table]) -> None:
        """Store predictions from files by name, so that the study does not need the files any more."""
        for name, table in tables.items():
            self._write_table(f"predictions/{name}.parquet", table)

    def _predictions_file(self, name: str) -> Path:
        return self.folder / "predictions" / f"{name}.parquet"

    def has_imported(self, name: str) -> bool:
        """Return True if a training log is stored under a name."""
        return self._imported_file(name).is_file()

    def read_imported(self, name: str) -> TrainerLog:
        """Read a stored training log. Raises StoreError, in one line."""
        path = self._imported_file(name)
        return _parsed(path, lambda stored: TrainerLog(**stored), remedy(self.folder))

    def write_imported(self, logs: Mapping[str, TrainerLog]) -> None:
        """Store training logs by name, so that the study does not need their files any more."""
        for name, log in logs.items():
            self._write_json(f"imported/{name}.json", asdict(log))

    def _imported_file(self, name: str) -> Path:
        return self.folder / "imported" / f"{name}.json"

    def write_tests(self, tests: Sequence[StoredTest], tables: Mapping[str, pa.Table]) -> None:
        """Store test sets from elsewhere with their examples, so that their sources are not needed any more."""
        if not tests and not (self.folder / "tests.json").is_file():
            return
        for name, table in tables.items():
            self._write_table(f"tests/{name}.parquet", table)
        self._write_json("tests.json", [asdict(test) for test in tests])

    def read_tests(self) -> list[StoredTest]:
        """Read the descriptions of the stored test sets from elsewhere. Raises StoreError, in one line."""
        path = self.folder / "tests.json"
        return _parsed(path, _tests, remedy(self.folder)) if path.is_file() else []

    def test_set_table(self, name: str) -> pa.Table:
        """Read the examples of a stored test set. Raises StoreError."""
        return read_arrow(self.folder / "tests" / f"{name}.parquet")

    def sessions(self) -> list[Session]:
        """Read what every session took, in order. Raises StoreError, in one line."""
        path = self.folder / "sessions.json"
        if not path.is_file():
            return []
        return _parsed(path, _sessions, remedy(self.folder))

    def add_session(self, session: Session) -> None:
        """Store what one more session took."""
        self._write_json("sessions.json", [asdict(stored) for stored in (*self.sessions(), session)])

    def threads(self) -> int | None:
        """Read the threads that every job of this study has; None for a study without jobs. Raises StoreError."""
        path = self.folder / "slots.json"
        if path.is_file():
            return _parsed(path, lambda stored: int(stored["threads"]), remedy(self.folder))
        sessions = self.sessions()  # of an earlier version
        return sessions[-1].threads if sessions else None

    def write_slots(self, workers: int, threads: int) -> None:
        """Store the jobs at once and the threads of each, with which this study's jobs run."""
        self._write_json("slots.json", {"workers": workers, "threads": threads})

    def race(self) -> RaceRecord | None:
        """Read the race of this study; None for one that never raced. Raises StoreError, in one line."""
        path = self.folder / "race.json"
        return _parsed(path, RaceRecord.from_json, remedy(self.folder)) if path.is_file() else None

    def write_race(self, race: RaceRecord) -> None:
        """Store a race."""
        self._write_json("race.json", asdict(race))

    def write_comparison(self, comparison: Any) -> None:
        """Store a comparison, as JSON."""
        self._write_json("comparison.json", comparison)

    def _write_json(self, name: str, data: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        with resealing(path):
            write_json(path, data)

    def _write_table(self, name: str, table: pa.Table) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        with resealing(path):
            write_table(table, path)


def remedy(folder: Path) -> str:
    """What to do about a damaged file of a study."""
    return f"tuneoff verify {folder} --repair restores it"


def _ids(stored: Any) -> list[str]:
    """Return stored ids of runs or searches. Raises ValueError for one that is no name of a file."""
    for given in stored:
        if not isinstance(given, str) or not _ID.fullmatch(given):
            raise ValueError(f"{given!r} is no id of a run")
    return list(stored)


def _sessions(stored: Any) -> list[Session]:
    return [Session(**session) for session in stored]


def _parsed(path: Path, parse: Callable[[Any], T], to_do: str) -> T:
    """Read a JSON file and parse its content. Raises StoreError, in one line, if the content is not as expected."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, RecursionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({type(error).__name__}: {error}); {to_do}") from error

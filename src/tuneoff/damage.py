"""Damage to a stored study: files that differ from their checksums, are missing or cannot be read; and what is done.

Files of earlier versions have no checksums: they are damaged if they cannot be read.
"""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from tuneoff.checksums import (
    MANIFEST,
    copy_of,
    manifest_problems,
    remove_seal,
    seal_problem,
    sealed_names,
    update_manifest,
)
from tuneoff.errors import StoreError, TuneoffError, join_limited, one_line
from tuneoff.files import read_arrow, read_json
from tuneoff.runs import OK, StudyStore, remedy
from tuneoff.spec.file import load_yaml, read_study

ASIDE = "damaged"  # folder in a study's folder to which damaged files are moved
DATASETS = "datasets.yaml"  # as in datasets.py, which is above
# start of a file's name -> what --repair does with it, after it is moved aside
_REMEDIES = {
    "study.yaml": "restored from its copy",
    DATASETS: "restored from its copy",
    "sessions.json": "left out: it holds times and energy only",
    "slots.json": "written again",
    "race.json": "left out: the next race decides again",
    "comparison.json": "written again",
    "data.json": "written again from the data",
    "test.parquet": "written again from the data",
    "tests": "read again from its source",
    "predictions": "read again from its source",
    "imported": "read again from its source",
    "searches": "searched again",
}
_FOLDERS = ("tests", "predictions", "imported", "searches")


@dataclass(frozen=True)
class Damage:
    """A damaged file of a study, or a damaged run."""

    path: Path
    reason: str
    remedy: str  # what --repair does; empty if nothing can be done


@dataclass(frozen=True)
class Verified:
    """A verified study: its damage, and how much was compared."""

    folder: Path
    damage: tuple[Damage, ...]
    runs: int  # that are stored
    missing_runs: int  # listed and not stored: of a study that was stopped, or whose folders were removed
    without_checksums: int  # runs of an earlier version, which were read only


def verify(folder: Path) -> Verified:
    """Compare every stored file of a study with its checksum, and read it. Nothing is written."""
    store = StudyStore(folder)
    run_ids = _stored_runs(store)
    damage = [*_damaged_files(store), *(part for run_id in run_ids for part in _damaged_run(store, run_id, True))]
    try:
        listed = read_json(folder / "data.json")
        missing = {*listed["runs"], *listed.get("final", ())} - {*run_ids}
    except (StoreError, KeyError, TypeError, AttributeError):
        missing = set()
    unchecked = sum(not (store.runs.path(run_id) / MANIFEST).is_file() for run_id in run_ids)
    return Verified(folder, tuple(damage), len(run_ids), len(missing), unchecked)


def verify_datasets(folder: Path) -> list[Damage]:
    """Compare the specs of a study over several datasets with their checksum. Each dataset's study has its own."""
    return list(_damaged_yaml(folder / DATASETS, lambda path: load_yaml(path)["studies"].items()))


def check(store: StudyStore) -> None:
    """Raise StoreError if files on which a comparison depends differ from their checksums.

    Of stored models the sizes are compared: their content is read where they are loaded. study.yaml may be edited.
    """
    damaged = [store.folder / name for name in _names(store.folder) if seal_problem(store.folder / name)]
    damaged = [path for path in damaged if path.name not in ("study.yaml", "comparison.json")]
    damaged += [part.path for run_id in _stored_runs(store) for part in _damaged_run(store, run_id, False)]
    if damaged:
        names = join_limited([path.relative_to(store.folder).as_posix() for path in damaged], limit=3)
        raise StoreError(f"{store.folder} is damaged: {names}; {remedy(store.folder)}")


def check_model(folder: Path) -> None:
    """Raise StoreError if the files of a run's model differ from their checksums. folder: of the model."""
    problems = {n: p for n, p in manifest_problems(folder.parent).items() if n.startswith(f"{folder.name}/")}
    for name, problem in problems.items():
        study = folder.parent.parent.parent
        raise StoreError(f"{folder.parent / name} {problem}; {remedy(study)}")


def set_aside(folder: Path, damage: tuple[Damage, ...]) -> list[Path]:
    """Move damaged files of a study out of the way, so that they are made again; restore those that have a copy.

    Returns the new places. Raises StoreError if another process runs the study, or a file cannot be made again.
    """
    for part in damage:
        if not part.remedy:
            raise StoreError(f"{part.path} cannot be restored ({part.reason}); give the study's own file or command")
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            return [place for part in damage for place in _move(folder, part.path)]
    except filelock.Timeout:
        raise StoreError(f"another process is running the study in {folder}; wait for it or stop it") from None


def _move(folder: Path, path: Path) -> Iterator[Path]:
    remove_seal(path)
    if path.exists():
        relative = path.relative_to(folder)
        place, number = folder / ASIDE / relative, 1
        while place.exists():
            number += 1
            place = folder / ASIDE / relative.with_name(f"{relative.stem}.{number}{relative.suffix}")
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
        yield place
    if path.parent.name == "tests" and path.parent.parent.parent.name == "runs":  # of a run, which is kept
        run = path.parent.parent
        update_manifest(run, removed=[path.relative_to(run).as_posix()])
    if (copy := copy_of(path)).is_file():
        shutil.copyfile(copy, path)


def _stored_runs(store: StudyStore) -> list[str]:
    folders = sorted(store.runs.folder.glob("*"))
    return [path.name for path in folders if path.is_dir() and not path.name.startswith(".")]


def _names(folder: Path) -> list[str]:
    """List the files of a study outside its runs: those that are there, and those of which there is a checksum."""
    names = {*(name for name in _REMEDIES if "." in name and (folder / name).is_file()), *sealed_names(folder)}
    for inner in _FOLDERS:
        present = [path.name for path in (folder / inner).glob("[!.]*") if path.is_file()]
        names |= {f"{inner}/{name}" for name in (*present, *sealed_names(folder / inner))}
    return sorted(names)


def _damaged_files(store: StudyStore) -> Iterator[Damage]:
    yield from _damaged_yaml(store.folder / "study.yaml", lambda path: read_study(str(path)))
    for name in _names(store.folder):
        path = store.folder / name
        if name == "study.yaml":
            continue
        problem = seal_problem(path) or _unreadable(_reader(store, path))
        if problem:
            yield Damage(path, problem, _REMEDIES.get(name, _REMEDIES.get(name.partition("/")[0], "")))


def _damaged_yaml(path: Path, read: Callable[[Path], object]) -> Iterator[Damage]:
    problem = _unreadable(lambda: read(path))
    if not problem and (problem := seal_problem(path)):
        problem += ": damaged, or edited, and then running the study again keeps the edit"
    if problem:
        has_copy = copy_of(path).is_file() and not seal_problem(path, of_copy=True)
        yield Damage(path, problem, _REMEDIES[path.name] if has_copy else "")
    elif copy_of(path).is_file() and (copy_problem := seal_problem(path, of_copy=True)):
        yield Damage(copy_of(path), copy_problem, "written again")


def _reader(store: StudyStore, path: Path) -> Callable[[], object]:
    """Return a function that reads a file of a study, and raises an error if it cannot be read."""
    readers: dict[str, Callable[[], object]] = {
        "data.json": store.read_data,
        "sessions.json": store.sessions,
        "slots.json": store.threads,
        "race.json": store.race,
        "tests.json": store.read_tests,
    }
    if path.suffix == ".parquet":
        return lambda: read_arrow(path)
    if path.parent.name == "searches":
        return lambda: store.searches.read(path.stem)
    if path.parent.name == "imported":
        return lambda: store.read_imported(path.stem)
    return readers.get(path.name, lambda: read_json(path))


def _unreadable(read: Callable[[], object]) -> str:
    """Return why a file cannot be read, without what to do; empty if it can."""
    try:
        read()
    except TuneoffError as error:
        return one_line(str(error).partition("; tuneoff verify")[0].partition("; run the study again")[0])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        return one_line(f"{type(error).__name__}: {error}")
    return ""


def _damaged_run(store: StudyStore, run_id: str, is_thorough: bool) -> Iterator[Damage]:
    """Yield a damaged run, or of one whose predictions for other test sets alone are damaged, these."""
    folder = store.runs.path(run_id)
    problems = manifest_problems(folder, only_sizes_of=None if is_thorough else "model/")
    if not is_thorough and not store.runs.has_model(run_id):  # a run without its model is complete
        problems = {name: problem for name, problem in problems.items() if not name.startswith("model/")}
    if problems and all(name.startswith("tests/") for name in problems):
        yield from (Damage(folder / name, problem, "predicted again") for name, problem in problems.items())
        return
    reason = "; ".join(f"{name} {problem}" for name, problem in list(problems.items())[:2])
    reason = reason or _unreadable(lambda: _check_record(store, run_id))
    if not reason and is_thorough and not (folder / MANIFEST).is_file():
        reason = _unreadable(lambda: _read_files(folder))
    if reason:
        yield Damage(folder, reason, "trained again")


def _check_record(store: StudyStore, run_id: str) -> None:
    record = store.runs.record(run_id)
    if record.run_id != run_id:
        raise StoreError(f"run.json is of run {record.run_id}")
    if record.status == OK and record.metrics and not (store.runs.path(run_id) / "predictions.parquet").is_file():
        raise StoreError("predictions.parquet is missing")


def _read_files(folder: Path) -> None:
    """Read the files of a run without checksums, as far as their formats find damage."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            read_arrow(path)
        elif path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".skops":
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    raise StoreError(f"{path.name} has a wrong checksum")
        elif path.suffix == ".safetensors":
            try:
                safe_open(path, "np")
            except SafetensorError as error:
                raise StoreError(f"{path.name} cannot be read ({error})") from error
    model = folder / "model"
    if model.is_dir() and not any(path.suffix in (".safetensors", ".skops") for path in model.iterdir()):
        raise StoreError("model/ holds no weights")

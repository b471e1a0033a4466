"""Listing of the damage to a stored study, and what is moved aside before it is made again."""

import json
from pathlib import Path

from tuneoff.cli.output import console, visible
from tuneoff.damage import DATASETS, Damage, Verified, set_aside, verify, verify_datasets
from tuneoff.errors import StoreError
from tuneoff.formats import counted


def print_damage(folder: str, repairs: bool, as_json: bool) -> bool:
    """Print the damaged files and runs of a study, or of a folder of several; return True if there are any.

    repairs: what is damaged is made again, so that the command for it is not named.
    """
    studies = [verify(path) for path in _folders(Path(folder))]
    damage = [part for of_study in _damage(Path(folder), studies).values() for part in of_study]
    if as_json:
        listed = [{"path": str(part.path), "reason": part.reason, "repair": part.remedy} for part in damage]
        print(json.dumps(listed, indent=1))
        return bool(damage)
    for part in damage:
        remedy = f"--repair: {part.remedy}" if part.remedy else "it cannot be restored; run its own file or command"
        console.print(visible(f"{part.path}: {part.reason} ({remedy})"), soft_wrap=True)
    for study in studies:
        _print_notes(study)
    if not damage:
        runs = counted(sum(study.runs for study in studies), "run")
        console.print(visible(f"Nothing is damaged in {folder}: {runs}"), soft_wrap=True)
    elif not repairs:
        hint = f"tuneoff verify {folder} --repair makes again what can be"
        console.print(visible(f"{counted(len(damage), 'part')} damaged; {hint}"), soft_wrap=True)
    return bool(damage)


def restore(folder: str) -> list[Path]:
    """Move what is damaged aside; return the folders of the studies that must run again."""
    studies = [verify(path) for path in _folders(Path(folder))]
    again = []
    for path, damage in _damage(Path(folder), studies).items():
        for place in set_aside(path, damage):
            console.print(visible(f"moved to {place}"), soft_wrap=True)
        if damage and (path / "study.yaml").is_file():
            again.append(path)
    return again


def _damage(folder: Path, studies: list[Verified]) -> dict[Path, tuple[Damage, ...]]:
    """Return the damage by the folder of each study, and of the folder of several."""
    of_set = {folder: tuple(verify_datasets(folder))} if _is_set(folder) else {}
    return {**of_set, **{study.folder: study.damage for study in studies}}


def _print_notes(study: Verified) -> None:
    if study.missing_runs:
        text = f"{study.folder}: {counted(study.missing_runs, 'listed run')} not stored; tuneoff run {study.folder}"
        console.print(visible(f"{text} trains what is missing"), soft_wrap=True)
    if study.without_checksums:
        text = f"{counted(study.without_checksums, 'run')} of an earlier version without checksums, which can be read"
        console.print(visible(f"{study.folder}: {text}"), soft_wrap=True)


def _is_set(folder: Path) -> bool:
    return (folder / DATASETS).is_file() or (folder / ".checksums" / f"{DATASETS}.sum").is_file()


def _is_study(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("study.yaml", ".checksums/study.yaml.sum", "runs"))


def _folders(folder: Path) -> list[Path]:
    """Return the folders of the studies in a folder: itself, or those of its datasets. Raises StoreError for none."""
    if _is_set(folder):
        return sorted(path for path in folder.iterdir() if path.is_dir() and _is_study(path))
    if not _is_study(folder):
        raise StoreError(f"folder {str(folder)!r} holds no study; give a study's folder, e.g. results/quickstart")
    return [folder]

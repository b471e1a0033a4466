"""Listing of the stored studies, and removal of what they no longer use."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from tuneoff.cli.output import console, visible
from tuneoff.errors import StoreError
from tuneoff.formats import join_names, size
from tuneoff.orphans import Orphan, StoredStudy, remove_orphans, stored_studies, stored_study

_RESULTS = Path("results")  # as in study.py, which is slow to import
_NOUNS = {
    "run": ("run", "runs"),
    "search": ("search", "searches"),
    "unfinished": ("unfinished file", "unfinished files"),
}


def print_studies(names: Sequence[str]) -> None:
    """Print a line for each stored study: its runs and its orphans. names: of folders; all in results/ if empty."""
    for study in _studies(names):
        orphans = f", and {orphans_text(study.orphans)} that it does not use" if study.orphans else ""
        runs = f"{study.num_runs} run{'' if study.num_runs == 1 else 's'}"
        console.print(visible(f"{study.folder}  {runs}{orphans}"), soft_wrap=True)


def studies_as_json(names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return the stored studies by folder: their runs and their orphans. names: as in print_studies."""
    return {str(s.folder): {"runs": s.num_runs, "orphans": _as_json(s.orphans)} for s in _studies(names)}


def print_orphans(folder: Path, screen: Console) -> None:
    """Print how many stored runs the report does not show, if there are any."""
    runs = sum(orphan.kind == "run" for orphan in stored_study(folder).orphans)
    if runs:
        are_runs = "stored run has other settings and is" if runs == 1 else "stored runs have other settings and are"
        text = f"{runs} {are_runs} not shown; tuneoff studies --prune {folder} removes {'it' if runs == 1 else 'them'}"
        screen.print(visible(text), soft_wrap=True)


def prune_studies(names: Sequence[str], is_confirmed: bool, as_json: bool) -> None:
    """List the orphans of studies and remove them: if that is confirmed already, or by the user in a terminal."""
    from tuneoff.cache import leftovers  # it imports pyarrow

    studies = [study for study in _studies(names) if study.orphans]
    left = [Orphan("unfinished", path) for path in leftovers()]  # in the cache
    orphans = [*left, *(orphan for study in studies for orphan in study.orphans)]
    screen = Console(quiet=True) if as_json else console
    if as_json:
        in_cache = {str(left[0].path.parent): _as_json(left)} if left else {}
        print(json.dumps({str(study.folder): _as_json(study.orphans) for study in studies} | in_cache, indent=1))
    for orphan in orphans:
        screen.print(visible(f"{orphan.path}  {orphan.kind}, {size(orphan.size_bytes)}"), soft_wrap=True)
    if not orphans:
        screen.print("Nothing to remove: every stored run and search is used")
        return
    is_terminal = sys.stdin.isatty() and screen.is_terminal and not as_json
    if not is_confirmed and not is_terminal:
        screen.print(f"Nothing was removed; add --yes to remove {orphans_text(orphans)}")
    elif is_confirmed or typer.confirm(f"Remove {orphans_text(orphans)}?"):
        for orphan in left:
            shutil.rmtree(orphan.path, ignore_errors=True)
        if left:
            screen.print(visible(f"{left[0].path.parent}: removed {orphans_text(left)}"), soft_wrap=True)
        for study in studies:
            removed = f"removed {orphans_text(study.orphans)}"
            done = removed if remove_orphans(study) else "nothing was removed, because another process runs this study"
            screen.print(visible(f"{study.folder}: {done}"), soft_wrap=True)


def _studies(names: Sequence[str]) -> list[StoredStudy]:
    if not names:
        return stored_studies(_RESULTS)
    folders = [Path(name) if (Path(name) / "study.yaml").is_file() else _RESULTS / name for name in names]
    for name, folder in zip(names, folders, strict=True):
        if not (folder / "study.yaml").is_file():
            raise StoreError(f"{name!r} is no study's folder; give one with a study.yaml, e.g. results/quickstart")
    return [stored_study(folder) for folder in folders]


def orphans_text(orphans: Sequence[Orphan]) -> str:
    """Phrase such as "3 runs and 1 search (12.3 MB)"."""
    counts = Counter(orphan.kind for orphan in orphans)
    parts = [f"{count} {_NOUNS[kind][count > 1]}" for kind, count in counts.items()]
    return f"{join_names(parts)} ({size(sum(orphan.size_bytes for orphan in orphans))})"


def _as_json(orphans: Sequence[Orphan]) -> list[dict[str, object]]:
    return [{"kind": o.kind, "path": str(o.path), "bytes": o.size_bytes} for o in orphans]

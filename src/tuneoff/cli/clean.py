"""Listing of what can be freed on disk, and its removal: of each kind, if that is confirmed."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

from tuneoff import cache
from tuneoff.cli.output import console, visible
from tuneoff.cli.stored import orphans_text
from tuneoff.formats import size
from tuneoff.orphans import remove_orphans, stored_studies
from tuneoff.spare_models import remove_spare_models, spare_models

_RESULTS = Path("results")  # as in study.py, which is slow to import
# kind of a cache entry -> (in words, one and several)
_ENTRIES = {
    "dataset": ("dataset", "datasets"),
    "tokens": ("split as tokens", "splits as tokens"),
    "lengths": ("count of tokens", "counts of tokens"),
    "vocabulary": ("vocabulary", "vocabularies"),
    "prefix": ("output of frozen blocks", "outputs of frozen blocks"),
    "profile": ("size of a strategy", "sizes of strategies"),
    "vega": ("script of the charts", "scripts of the charts"),
}


@dataclass(frozen=True)
class _Part:
    """A kind of files that can be removed: its name, where they are, and how they are removed."""

    kind: str  # cache | models | orphans
    place: str
    text: str  # what is there
    size_bytes: int
    remove: Callable[[], bool]  # False if another process uses the files


def clean_disk(is_confirmed: bool, as_json: bool) -> None:
    """List what can be freed and remove the kinds that are confirmed: by --yes, or by the user in a terminal.

    All questions are asked before anything is removed: an interrupt at any of them frees nothing.
    """
    parts = [*_cache_parts(), *_study_parts()]
    screen = Console(quiet=True) if as_json else console
    if as_json:
        listed = [{"kind": p.kind, "place": p.place, "content": p.text, "bytes": p.size_bytes} for p in parts]
        print(json.dumps(listed, indent=1))
    for part in parts:
        screen.print(visible(f"{size(part.size_bytes):>9}  {part.place}: {part.text}"), soft_wrap=True)
    if not parts:
        screen.print("Nothing to free")
        return
    if not is_confirmed and (as_json or not (sys.stdin.isatty() and screen.is_terminal)):
        screen.print(f"Nothing was removed; add --yes to free {size(sum(part.size_bytes for part in parts))}")
        return
    questions = {
        "cache": "Empty the cache ({}; it is built again when it is needed)?",
        "models": "Remove models that are not recommended ({}; their runs and scores stay)?",
        "orphans": "Remove runs and searches that their study no longer lists ({})?",
    }
    totals = {kind: sum(part.size_bytes for part in parts if part.kind == kind) for kind in questions}
    present = [kind for kind in questions if any(part.kind == kind for part in parts)]
    chosen = [k for k in present if is_confirmed or typer.confirm(questions[k].format(size(totals[k])))]
    freed = 0
    for part in parts:
        if part.kind in chosen:
            if part.remove():
                freed += part.size_bytes
            else:
                screen.print(visible(f"{part.place}: kept, because another process uses it"), soft_wrap=True)
    screen.print(f"Freed {size(freed)}" if freed else "Nothing was removed")


def _cache_parts() -> list[_Part]:
    sizes = cache.sizes_by_kind()
    entries = []
    for kind, (count, total) in sorted(sizes.items(), key=lambda item: -item[1][1]):
        one, several = _ENTRIES.get(kind, (kind, kind))
        entries.append(f"{count:,} {one if count == 1 else several} ({size(total)})")
    total = sum(total for _, total in sizes.values())
    place = str(cache.cache_folder())
    return [_Part("cache", place, ", ".join(entries), total, _clear_cache)] if entries else []


def _clear_cache() -> bool:
    if cache.is_in_use():
        return False
    cache.clear()
    return True


def _study_parts() -> list[_Part]:
    parts = []
    for study in stored_studies(_RESULTS):
        folder, models = study.folder, spare_models(study.folder)
        if models:
            text = f"{len(models)} model{'' if len(models) == 1 else 's'} of strategies that the verdict does not pick"
            total = sum(model.size_bytes for model in models)
            parts.append(_Part("models", str(folder), text, total, partial(remove_spare_models, folder)))
        if study.orphans:
            text = f"{orphans_text(study.orphans)} that the study does not list"
            total = sum(orphan.size_bytes for orphan in study.orphans)
            parts.append(_Part("orphans", str(folder), text, total, partial(remove_orphans, study)))
    return parts

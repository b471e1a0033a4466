"""Large models in stored studies that are not of the strategy which the verdict picks.

Read without pyarrow, like orphans.py.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import filelock

from tuneoff.validation import parse_yaml

SMALL_MODEL_BYTES = 10_000_000  # models up to this size are kept: those of LoRA, adapters and classifiers


@dataclass(frozen=True)
class SpareModel:
    """The folder of a model that a study does not recommend."""

    path: Path
    size_bytes: int


def spare_models(folder: Path) -> list[SpareModel]:
    """List the spare models of a study; none without a pick, or where the study states keep: all."""
    try:
        listed = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
        spec = parse_yaml((folder / "study.yaml").read_text(encoding="utf-8"), "study.yaml")
        picked, runs = comparison["verdict"]["recommended"], set(listed["runs"])
        keeps_all = spec.get("keep") == "all"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    if picked is None or keeps_all:
        return []
    spare = []
    for run in sorted((folder / "runs").glob("*")):
        model = run / "model"
        if run.name in runs and run.name.rpartition("-s")[0] != picked and model.is_dir() and not model.is_symlink():
            size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
            spare += [SpareModel(model, size)] if size > SMALL_MODEL_BYTES else []
    return spare


def remove_spare_models(folder: Path) -> bool:
    """Remove the spare models of a study. False if another process runs it."""
    from tuneoff.checksums import update_manifest  # it imports pyarrow

    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            for model in spare_models(folder):
                update_manifest(model.path.parent, removed=["model/"])
                shutil.rmtree(model.path)
            (folder / ".lock").unlink(missing_ok=True)
            return True
    except filelock.Timeout:
        return False

"""Weights & Biases: a group of runs, offline unless the user asks for online."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneoff.cache import fingerprint
from tuneoff.track import WandbOptions
from tuneoff.trackers.base import RUN_ID, TrackedRun, TrackedStudy

_STORED = "tuneoff-stored"  # file that is written last: the run is complete


def store_in_wandb(study: TrackedStudy, options: WandbOptions) -> str:
    """Store a study; runs that are stored already are left as they are.

    The id of a run on the server holds its stamp: a stored run cannot be replaced there.
    """
    folder = Path(options.folder).expanduser() if options.folder else study.folder
    for run in study.runs:
        _store(
            folder,
            options,
            study.name,
            run.run_id,
            run.stamp,
            {"name": run.name, "config": {**run.params, RUN_ID: run.run_id}, "notes": run.error},
            lambda wandb_run, run=run: _write_run(wandb_run, run),  # type: ignore[misc]
            has_failed=run.error is not None,
        )
    _store(
        folder,
        options,
        study.name,
        study.id,
        study.stamp,
        {"name": study.name, "config": {**study.params, RUN_ID: study.id}, "notes": study.verdict},
        lambda wandb_run: _write_study(wandb_run, study),
    )
    if options.mode == "online":
        return f"project {options.project}, group {study.name}"
    return f"{folder / 'wandb'}, project {options.project}, group {study.name} (wandb sync sends it)"


def _store(
    folder: Path,
    options: WandbOptions,
    group: str,
    run_id: str,
    stamp: str,
    fields: dict[str, Any],
    write: Callable[[Any], None],
    has_failed: bool = False,
) -> None:
    unique = f"{run_id}-{fingerprint(options.project, stamp)[:6]}"
    for former in (folder / "wandb").glob(f"*run-*-{unique}"):
        if (former / _STORED).is_file():
            return
        shutil.rmtree(former)  # of an interrupted call
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True
    )
    run = wandb.init(
        project=options.project,
        group=group,
        id=unique,
        mode=options.mode,
        dir=str(folder),
        settings=settings,
        reinit="create_new",
        **fields,
    )
    try:
        write(run)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish(exit_code=int(has_failed))
    (Path(run.dir).parent / _STORED).touch()


def _write_run(wandb_run: Any, run: TrackedRun) -> None:
    for point in run.curves:
        wandb_run.log(point.values, step=point.step)
    wandb_run.summary.update(run.scores)


def _write_study(wandb_run: Any, study: TrackedStudy) -> None:
    import wandb

    wandb_run.summary.update({**study.scores, "verdict": study.verdict})
    wandb_run.log({"leaderboard": wandb.Table(dataframe=study.leaderboard)})
    report = wandb.Artifact(f"report-{study.name}", type="report")
    for name, path in study.files.items():
        report.add_file(str(path), name)
    wandb_run.log_artifact(report)
    if study.model:
        model = wandb.Artifact(f"model-{study.name}", type="model", metadata={RUN_ID: study.model.parent.name})
        model.add_dir(str(study.model))
        wandb_run.log_artifact(model)

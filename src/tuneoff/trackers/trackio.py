"""trackio: a group of runs in a project of a local SQLite file."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuneoff.errors import ConfigError
from tuneoff.track import TrackioOptions
from tuneoff.trackers.base import TrackedStudy

# keys of a run's config that it is recognized by; trackio keeps names that begin with _ for itself
_RUN_ID, _STAMP = "run_id", "stamp"
_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


def store_in_trackio(study: TrackedStudy, options: TrackioOptions) -> str:
    """Store a study; runs that are stored already are left as they are."""
    remote = [name for name in _REMOTE if os.environ.get(name)]
    if remote:
        raise ConfigError(f"{remote[0]} is set, but a study is stored in a local project only; unset it")
    if options.folder:  # trackio reads it at its import
        os.environ["TRACKIO_DIR"] = str(Path(options.folder).expanduser().resolve())
    import trackio
    from trackio.utils import TRACKIO_DIR

    stored = {}
    with suppress(ValueError):  # the project does not exist yet
        stored = {r.config[_RUN_ID]: r for r in trackio.Api().runs(options.project) if _RUN_ID in (r.config or {})}

    def start(run_id: str, stamp: str, name: str, params: dict[str, Any]) -> bool:
        """Begin a run, unless it is stored."""
        former = stored.get(run_id)
        if former is not None and former.config is not None:
            if former.config.get(_STAMP) == stamp:
                return False
            former.delete()
        trackio.init(
            project=options.project,
            name=name,
            group=study.name,
            config={**params, _RUN_ID: run_id, _STAMP: stamp},
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return True

    for run in study.runs:
        params = run.params | ({"failed": run.error} if run.error else {})
        if start(run.run_id, run.stamp, f"{study.name} {run.name}", params):
            for point in run.curves:
                trackio.log(point.values, step=point.step)
            last_step = run.curves[-1].step if run.curves else 0
            trackio.log({**run.scores, "failed": int(run.error is not None)}, step=last_step)
            trackio.finish()
    if start(study.id, study.stamp, study.name, study.params):
        content = {
            "verdict": trackio.Markdown(study.verdict),
            "leaderboard": trackio.Table(dataframe=study.leaderboard),
        }
        trackio.log({**study.scores, **content}, step=0)
        report = trackio.Artifact(f"report-{study.name}", type="report")
        for name, path in study.files.items():
            report.add_file(str(path), name)
        trackio.log_artifact(report)
        if study.model:
            trackio.log_artifact(str(study.model), name=f"model-{study.name}", type="model")
        trackio.finish()
    return f"{TRACKIO_DIR}, project {options.project} (trackio show --project {options.project})"

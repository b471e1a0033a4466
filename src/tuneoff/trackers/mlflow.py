"""MLflow: a parent run for the study, and a nested run for each of its runs."""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tuneoff.track import MlflowOptions
from tuneoff.trackers.base import RUN_ID, STAMP, TrackedRun, TrackedStudy

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# by default MLflow tries seven times, for minutes, while a server is down
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_MAX_METRICS, _MAX_PARAMS, _MAX_LENGTH = 1000, 100, 6000  # that a server takes at once; of a value
_PARENT = "mlflow.parentRunId"  # tag that nests a run
_NOTE = "mlflow.note.content"  # tag that MLflow shows as the description


def store_in_mlflow(study: TrackedStudy, options: MlflowOptions) -> str:
    """Store a study; runs that are stored already are left as they are."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("alembic").setLevel(logging.ERROR)  # it reports every table of a new database
    from mlflow import MlflowClient

    uri = options.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    client, name = MlflowClient(tracking_uri=uri), options.experiment or study.name
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    stored = {run.data.tags.get(RUN_ID): run for run in _stored_runs(client, experiment_id)}
    parent = stored.get(study.id)
    tags = {RUN_ID: study.id, _NOTE: study.verdict}
    if parent is None:
        parent = client.create_run(experiment_id, run_name=study.name, tags=tags)
    for run in study.runs:
        _store_run(client, experiment_id, parent.info.run_id, run, stored.get(run.run_id))
    if parent.data.tags.get(STAMP) != study.stamp:
        _store_study(client, parent.info.run_id, study)
    return f"{_shown(uri)}, experiment {name}"


def _stored_runs(client: "MlflowClient", experiment_id: str) -> Iterator["Run"]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _store_run(
    client: "MlflowClient", experiment_id: str, parent_id: str, run: TrackedRun, stored: "Run | None"
) -> None:
    if stored is not None:
        if stored.data.tags.get(STAMP) == run.stamp and stored.info.status in ("FINISHED", "FAILED"):
            return
        client.delete_run(stored.info.run_id)  # of an interrupted call, or of a failed run that was trained again
    end = int(1000 * run.finished_at) or int(1000 * time.time())
    start = end - int(1000 * run.seconds)
    tags: dict[str, Any] = {RUN_ID: run.run_id, STAMP: run.stamp, _PARENT: parent_id}
    tags |= {_NOTE: run.error} if run.error else {}
    run_id = client.create_run(experiment_id, start_time=start, tags=tags, run_name=run.name).info.run_id
    last_step = run.curves[-1].step if run.curves else 0
    metrics = [(key, value, point.step) for point in run.curves for key, value in point.values.items()]
    metrics += [(key, value, last_step) for key, value in run.scores.items()]
    _log(client, run_id, metrics, run.params, end)
    client.set_terminated(run_id, "FAILED" if run.error else "FINISHED", end)


def _store_study(client: "MlflowClient", run_id: str, study: TrackedStudy) -> None:
    _log(client, run_id, [(key, value, 0) for key, value in study.scores.items()], {}, int(1000 * time.time()))
    for key, value in {**study.params, _NOTE: study.verdict}.items():  # tags, because a parameter cannot change
        client.set_tag(run_id, key, str(value))
    table = json.loads(study.leaderboard.to_json(orient="split", index=False))
    client.log_dict(run_id, table, "leaderboard.json")
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": "leaderboard.json", "type": "table"}]))
    for name, path in study.files.items():
        client.log_artifact(run_id, str(path), name.rpartition("/")[0] or None)
    if study.model:
        client.log_artifacts(run_id, str(study.model), f"model/{study.model.parent.name}")
    client.set_terminated(run_id, "FINISHED")
    client.set_tag(run_id, STAMP, study.stamp)  # last: without it everything is stored again


def _log(
    client: "MlflowClient",
    run_id: str,
    metrics: Sequence[tuple[str, float, int]],
    params: dict[str, Any],
    timestamp: int,
) -> None:
    from mlflow.entities import Metric, Param

    for part in _batches(metrics, _MAX_METRICS):
        client.log_batch(run_id, metrics=[Metric(key, value, timestamp, step) for key, value, step in part])
    for part in _batches(list(params.items()), _MAX_PARAMS):
        client.log_batch(run_id, params=[Param(key, str(value)[:_MAX_LENGTH]) for key, value in part])


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def _shown(uri: str) -> str:
    """Return an address without its password."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", "@") if password else uri

"""One machine of a Ray cluster: an agent that runs jobs as this machine would alone, and the task that asks it to.

Ray schedules the tasks, which hold the cores, memory and GPUs of a job. A task hands its job to the agent of its
machine, whose worker process forks a child for each job (worker.py), as on one machine: the same process for the same
job gives the same bits, and the libraries are imported once for each machine and not for each job.
"""

import bisect
import contextlib
import json
import os
import queue
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import ray

from tuneoff.cache import cache_folder
from tuneoff.errors import StoreError, TuneoffError, one_line
from tuneoff.execute.keeping import Courier, Keeper, Place, fetch, machines_may_be_gone
from tuneoff.execute.local import LOST, describe_exit
from tuneoff.execute.parcels import brought_encoders, install, is_installed, pack, unpack
from tuneoff.execute.room import jobs_of_gpu
from tuneoff.execute.worker_process import WorkerProcess
from tuneoff.machine import versions
from tuneoff.runs import StudyStore
from tuneoff.search.record import SearchRecord

_POLL_SECONDS = 0.5  # between two looks at the trials of a search, and for an agent
_AGENT_SECONDS = 120.0  # that a task waits for the agent of its machine
_AGENT_RESTARTS = 20  # by Ray, where the agent's process has died
_FOLDER, _CLAIM = "tuneoff-node-", ".claim"  # of an agent: start of its name, and a file that it locks


@dataclass(frozen=True)
class Origin:
    """The study's own process, for the agents of all machines."""

    session: str  # name of its agents
    environment: Mapping[str, str]  # variables that jobs depend on
    home: tuple[str, str]  # its machine and its cache


@dataclass(frozen=True)
class Inputs:
    """What jobs read, which a machine lacks at first."""

    parcels: Mapping[str, list[Any]]  # name -> reference of Ray in a list, fetched if needed
    encoders: Mapping[str, str]  # name -> its entry in the cache


@dataclass(frozen=True)
class Task:
    """A job for a machine."""

    message: dict[str, Any]  # for the worker process
    search: dict[str, Any] | None  # record of a search so far
    stored: bytes | None  # packed run that only predicts
    checkpoint: Place | None  # that a run goes on from

    @property
    def job_id(self) -> str:
        """The job's id."""
        return str(self.message["job_id"])


@dataclass(eq=False)
class _Running:
    """A job that runs on this machine, or fetches what it goes on from."""

    messages: "queue.Queue[dict[str, Any]]" = field(default_factory=queue.Queue)  # of its process
    is_ending: bool = False


class Agent:
    """Runs jobs on one machine. Lives as long as the executor that made it."""

    def __init__(self, origin: Origin) -> None:
        self._is_home = origin.home == (socket.gethostname(), str(cache_folder()))
        self._node = ray.get_runtime_context().get_node_id()
        self._is_stopped, self._origin = False, origin
        self._broken = ""  # why the worker process cannot start
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray sets it to 1; a job sets its own number of threads
        os.environ.update(origin.environment)
        _remove_left_folders()
        self._folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
        self._claim = filelock.FileLock(self._folder / _CLAIM, thread_local=False)  # ends with this process
        self._claim.acquire()
        os.environ["TUNEOFF_ENCODERS"] = str(self._folder / "encoders.json")
        self._checks = self._folder / "checks"  # shared by the jobs of this machine: what they compared with checksums
        self._checks.mkdir()
        self._keeper = Keeper(self._folder / "kept")
        self._encoders: dict[str, dict[str, str]] = {}
        self._write_encoders()
        self._worker = WorkerProcess()
        self._lock = threading.Lock()
        self._is_ready = threading.Event()
        self._running: dict[str, _Running] = {}  # by job
        threading.Thread(target=self._listen, daemon=True).start()

    def surroundings(self) -> dict[str, Any]:
        """Return what a job of this machine needs in a process that this agent did not start."""
        environment = {name: os.environ[name] for name in [*self._origin.environment, "TUNEOFF_ENCODERS"]}
        # devices have no checkpoints on a cluster: it starts them again on any machines
        return {"environment": {**environment, "TUNEOFF_CHECKPOINT_SECONDS": "none"}, "checks": str(self._checks)}

    def versions(self) -> dict[str, str]:
        """Return the versions of this machine's libraries."""
        return versions()

    def jobs_of_gpu(self, largest_model: int) -> int:
        """Return how many jobs share a GPU of this machine. largest_model: parameters."""
        return jobs_of_gpu(largest_model)

    def lacks(self, names: list[str]) -> list[str]:
        """Return the parcels that this machine does not have."""
        return [] if self._is_home else [name for name in names if not is_installed(name)]

    def install(self, name: str, parcel: bytes) -> None:
        """Put a parcel into this machine's cache."""
        install(name, parcel)

    def use_encoders(self, entries: Mapping[str, str]) -> None:
        """Read encoders from the cache. entries: by name of the encoder."""
        if self._is_home:
            return
        with self._lock:
            self._encoders |= brought_encoders(entries)
            self._write_encoders()

    def _write_encoders(self) -> None:
        path = self._folder / "encoders.json"
        path.with_suffix(".new").write_text(json.dumps(self._encoders), encoding="utf-8")
        path.with_suffix(".new").replace(path)

    def keep(self, name: str, offset: int, part: bytes, size: int) -> None:
        """Keep a part of a checkpoint of another machine. size: of all parts, in bytes."""
        self._keeper.add(name, offset, part, size)

    def kept(self, name: str, offset: int) -> tuple[int, bytes]:
        """Return a number and a part of a checkpoint that is kept here, as Keeper.part does."""
        return self._keeper.part(name, offset)

    def forget(self, name: str) -> None:
        """Remove a checkpoint that is kept here."""
        self._keeper.forget(name)

    def _agent_of(self, node: str) -> Any:
        return ray.get_actor(agent_name(self._origin, node), namespace=self._origin.session)

    def run(self, task: Task, watcher: Any) -> dict[str, Any]:
        """Run a job to its end, and return its record: the run's folder packed, the search, or the reason of a crash.

        watcher: actor that is told of the start, of progress, and of checkpoints.
        """
        job_id = task.job_id
        self.end(job_id)
        store = store_of(self._folder / job_id, task)
        checkpoint, fetched = store.runs.checkpoint(job_id), task.checkpoint
        message = {**task.message, "folder": str(store.folder), "log": str(store.log), "checks": str(self._checks)}
        self._running[job_id] = running = _Running()
        try:
            self._wait_for_worker()
            watcher.started.remote(job_id, self._node)
            if fetched and not fetch(fetched, checkpoint, self._agent_of, lambda: running.is_ending):
                fetched = None
            if running.is_ending:
                return {"crash": "it was ended", "code": LOST}
            courier = Courier(job_id, checkpoint, self._agent_of, watcher, fetched)
            running.messages = queue.Queue()
            self._wait_for_worker()  # one that ended meanwhile starts again
            self._worker.submit(message)
            crash, code = self._follow(message, running.messages, store, watcher, courier)
            courier.end()
            if task.search is not None:
                self._keep_best_trial(store, watcher)
            return {"crash": crash, "code": code, **pack_run(store, task)}
        finally:
            del self._running[job_id]
            shutil.rmtree(store.folder, ignore_errors=True)

    def _wait_for_worker(self) -> None:
        self._is_ready.wait()
        if self._broken:
            raise StoreError(self._broken)

    def _keep_best_trial(self, store: StudyStore, watcher: Any) -> None:
        """Keep the state at the end of a search's best trial for the run with its options."""
        for path in store.runs.folder.glob(".checkpoints/[!.]*.safetensors"):
            with machines_may_be_gone():
                place = Place(self._node, self._keeper.adopt(path), 1.0)
                ray.get(watcher.kept.remote(path.stem, place), timeout=_AGENT_SECONDS)  # before the search has ended

    def end(self, job_id: str) -> None:
        """End a job, if it runs. Ray may have killed the task that waited for it."""
        running = self._running.get(job_id)
        while running and self._running.get(job_id) is running:  # and not a later try
            running.is_ending = True
            self._worker.kill(job_id)
            time.sleep(_POLL_SECONDS / 5)

    def _follow(
        self,
        message: Mapping[str, Any],
        mailbox: "queue.Queue[dict[str, Any]]",
        store: StudyStore,
        watcher: Any,
        courier: Courier,
    ) -> tuple[str, int]:
        """Wait for the end of a job, tell the watcher of its progress, and send its checkpoints.

        Returns the reason of a crash, or "", and the exit code.
        """
        job_id, seen, reported, share = message["job_id"], 0.0, time.monotonic(), 0.0
        while True:
            courier.look(share)
            with contextlib.suppress(queue.Empty):
                event = mailbox.get(timeout=_POLL_SECONDS)
                if event["event"] == "progress":
                    share = event["share"]
                    if time.monotonic() - reported > message["report_seconds"]:
                        reported = time.monotonic()
                        watcher.progress.remote(job_id, share)
                elif event["event"] == "done":
                    return "", 0
                elif event["event"] == "stopped":
                    return "a signal stopped it", 1
                else:
                    return event.get("reason") or describe_exit(event["code"], "it left no reason"), event["code"]
            path = store.searches.path(job_id)
            if path.is_file() and path.stat().st_mtime > seen:  # another trial
                seen = path.stat().st_mtime
                watcher.trial.remote(job_id, asdict(store.searches.read(job_id)))

    def _listen(self) -> None:
        """Give each event of the worker process to the job that it is about; start a worker that ended again."""
        while True:
            event = self._worker.next_message()
            if event["event"] == "ready":
                self._is_ready.set()
            elif event["event"] == "ended":
                if self._is_stopped:
                    return
                reason = self._worker.last_stderr_line() or "it printed no reason"
                crash = {"event": "crashed", "code": event["code"], "reason": describe_exit(event["code"], reason)}
                for running in list(self._running.values()):
                    running.messages.put(crash)
                if not self._is_ready.is_set():
                    self._broken = f"the worker process on {socket.gethostname()} ended with code {event['code']}: "
                    self._broken += reason
                    self._is_ready.set()
                    return
                self._is_ready.clear()
                self._worker.start()
            elif of_event := self._running.get(event.get("job_id", "")):
                of_event.messages.put(event)

    def stop(self) -> None:
        """End the worker and its jobs."""
        self._is_stopped = True
        self._worker.stop()
        self._claim.release()
        shutil.rmtree(self._folder, ignore_errors=True)


def _remove_left_folders() -> None:
    """Remove the folders of agents on this machine whose processes were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        if (folder / _CLAIM).is_file():
            with contextlib.suppress(OSError, filelock.Timeout), filelock.FileLock(folder / _CLAIM, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def store_of(folder: Path, task: Task) -> StudyStore:
    """Return an empty store for one job, with the record of a search so far, or a run that only predicts."""
    store = StudyStore(folder)
    shutil.rmtree(folder, ignore_errors=True)  # of a task that was retried
    folder.mkdir()
    if task.search:
        store.searches.write(SearchRecord.from_json(task.search))
    if task.stored:
        packed = task.stored
        store.runs.adopt(task.job_id, lambda into: unpack(packed, into))
    return store


def pack_run(store: StudyStore, task: Task) -> dict[str, Any]:
    """Return what a job has stored: the record of a search, or the packed folder of a run, if there is one."""
    if task.search is not None:
        return {"search": asdict(store.searches.read(task.job_id))}
    folder = store.runs.path(task.job_id)
    return {"run": pack(folder)} if folder.is_dir() else {}


class Watcher:
    """Events of all machines, until the study's own process fetches them."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._results: dict[str, dict[str, Any]] = {}  # of jobs on several devices
        self._machines: list[str] = []  # Ray's ids, sorted

    def started(self, job_id: str, node: str) -> None:
        """Note that a job started. node: Ray's id of its machine."""
        self._events.append({"kind": "started", "job_id": job_id, "node": node})

    def progress(self, job_id: str, share: float) -> None:
        """Note the share of a job that is done."""
        self._events.append({"kind": "progress", "job_id": job_id, "share": share})

    def trial(self, job_id: str, record: dict[str, Any]) -> None:
        """Note the record of a search after another trial."""
        self._events.append({"kind": "trial", "job_id": job_id, "record": record})

    def kept(self, job_id: str, place: Place) -> None:
        """Note where a checkpoint of a run is."""
        self._events.append({"kind": "kept", "job_id": job_id, "place": place})

    def not_kept(self, node: str, reason: str) -> None:
        """Note that a machine could not keep a checkpoint. node: Ray's id of it."""
        self._events.append({"kind": "not kept", "node": node, "reason": reason})

    def use_machines(self, nodes: Sequence[str]) -> None:
        """Note the machines that have agents. nodes: Ray's ids."""
        self._machines = sorted(nodes)

    def next_machine(self, node: str) -> str:
        """Return the machine that keeps the checkpoints of a machine: the next one, or itself if it is alone."""
        machines = self._machines or [node]
        return machines[bisect.bisect_right(machines, node) % len(machines)]

    def end(self, job_id: str, result: dict[str, Any]) -> None:
        """Keep the record of a job on several devices."""
        self._results[job_id] = result

    def result(self, job_id: str) -> dict[str, Any] | None:
        """Return that record, once; None for a job that left none."""
        return self._results.pop(job_id, None)

    def fetch(self) -> list[dict[str, Any]]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events


def start_agent(origin: Origin, node: str) -> Any:
    """Return the agent of a machine, which is started if there is none. node: Ray's id of the machine.

    For the study's process alone: an agent ends with the last handle of the process that started it.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(Agent)
        .options(
            name=agent_name(origin, node),
            namespace=origin.session,
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=256,
            max_restarts=_AGENT_RESTARTS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote(origin)
    )


def running_agent(origin: Origin) -> Any:
    """Return the agent of this machine, once it answers.

    The study's process starts it soon on a machine that has just joined, and Ray starts it again where it has died.
    """
    name, deadline = agent_name(origin, ray.get_runtime_context().get_node_id()), time.monotonic() + _AGENT_SECONDS
    while True:
        try:
            agent = ray.get_actor(name, namespace=origin.session)
            ray.get(agent.lacks.remote([]), timeout=_AGENT_SECONDS)
        except (ValueError, ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError) as error:
            if time.monotonic() > deadline:
                raise StoreError(f"machine {socket.gethostname()} has no agent of the study that answers") from error
            time.sleep(_POLL_SECONDS)
        else:
            return agent


def agent_name(origin: Origin, node: str) -> str:
    """Return the name of the agent of a machine. node: Ray's id of the machine."""
    return f"{origin.session}-{node}"


def run_there(origin: Origin, inputs: Inputs, task: Task, watcher: Any) -> dict[str, Any]:
    """Run a job on the machine to which Ray sent this task. Returns its record, as Agent.run does.

    If this machine cannot run it, the record has the machine and the reason: its agent is missing, has died too often,
    or has raised an error.
    """
    on_gpu = replace(task, message={**task.message, "gpu": reserved_gpu()})
    try:
        result: dict[str, Any] = ray.get(agent_with(origin, inputs).run.remote(on_gpu, watcher))
    except (ray.exceptions.RayTaskError, ray.exceptions.ActorDiedError, TuneoffError) as error:
        reason = one_line(getattr(error, "cause", error), 300)
        return {"crash": reason, "code": LOST, "machine": ray.get_runtime_context().get_node_id()}
    return result


def reserved_gpu() -> str:
    """Return the GPU that Ray reserved for this task, for CUDA_VISIBLE_DEVICES; empty for none.

    The agent, which holds no GPU, sees all of them.
    """
    return ",".join(ray.get_runtime_context().get_accelerator_ids()["GPU"])


def agent_with(origin: Origin, inputs: Inputs) -> Any:
    """Return the agent of this machine, which has everything that a job reads."""
    agent = running_agent(origin)
    for name in ray.get(agent.lacks.remote(list(inputs.parcels))):
        ray.get(agent.install.remote(name, inputs.parcels[name][0]))
    ray.get(agent.use_encoders.remote(inputs.encoders))
    return agent

"""Executor on a Ray cluster: the same jobs as on one machine, as Ray tasks on whatever machines have room.

Ray schedules, moves data and notices machines that die; nothing here schedules across machines. A task hands its job to
the agent of its machine (node.py), and the agents keep checkpoints for each other (keeping.py). Records come back
through Ray and are written here, so that only this process needs the study's folder. What follows a job that is lost is
decided in dispatch.py. When the head is lost, this process leaves the cluster, waits a minute for the address to answer
again, and submits what ran.
"""

import contextlib
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

from tuneoff.cache import cache_folder
from tuneoff.compat_ray import cluster_id, outlive_raylet, silence
from tuneoff.errors import ConfigError, LibraryError, StopRequested, StoreError, one_line
from tuneoff.execute.dispatch import ConnectionLost, Dispatch
from tuneoff.execute.executor import Event, Slots
from tuneoff.execute.inputs import encoder_entries, parcels_for
from tuneoff.execute.job import only_predicts
from tuneoff.execute.local import LOST
from tuneoff.execute.parcels import pack, unpack
from tuneoff.execute.room import bytes_of_job, local_slots
from tuneoff.formats import counted
from tuneoff.machine import cores
from tuneoff.notices import notice
from tuneoff.runs import StudyStore
from tuneoff.search.record import SearchRecord
from tuneoff.signals import stop_signals, stops_call
from tuneoff.spec.run import Job
from tuneoff.strategies import GradientConfig

if TYPE_CHECKING:  # need Ray
    from tuneoff.execute.cluster_machines import Node, Reservation
    from tuneoff.execute.keeping import Place
    from tuneoff.execute.node import Origin

_POLL_SECONDS = 0.2
_CONNECT_SECONDS, _CONNECT_TRIES = 10.0, 3  # that a head may take to answer
_LOOK_SECONDS = 5.0  # between two looks at the machines of the cluster
_HEAD_SECONDS, _GET_SECONDS = 1.0, 0.1  # between two looks at its head; between a look and the fetching of a result
_RECONNECT_SECONDS = 60.0  # that a head may be away
_REPORT_SECONDS, _REPORTS_A_SECOND = 1.0, 50  # of progress: of a job, and of all jobs
_RPC_SECONDS = 10.0  # that an actor on this machine may take to answer
# of the study's own process, on which jobs depend
_VARIABLES = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_OWN_VARIABLES = ("TUNEOFF_CUDA_GRAPHS", "TUNEOFF_CHECKPOINT_SECONDS")


class RayExecutor:
    """Runs jobs on a Ray cluster. A context manager: it connects when it starts.

    address: "ray" starts Ray on this machine, "auto" finds the cluster that this machine belongs to; else the address
    of a head, host:port or ray://host:port.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._bytes_of_job = 0.0
        self._jobs_of_gpu = 1  # that share one
        # of each job: decided once, because after a restart of the head its machines come back one by one
        self._uses_gpu, self._reserves_memory = False, False
        self._had_room = True  # at the last look
        self._head = ""  # address of the head, host:port
        self._connect()

    def _connect(self, address: str | None = None) -> None:
        address = address or self._address
        if address != "ray":
            outlive_raylet()
        try:
            import ray
        except ImportError as error:
            raise LibraryError(f"{error.name} is not installed; install it with: pip install 'tuneoff[ray]'") from error
        self._session = f"tuneoff-{uuid.uuid4().hex[:8]}"  # of this connection: agents of an earlier one may be there
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "namespace": self._session}
        if address == "ray":
            options |= {"address": "local", "include_dashboard": False, "num_cpus": cores()}
        else:
            options |= {"address": address}
        handlers = {number: signal.getsignal(number) for number in stop_signals()}
        try:
            _check_answers(address)
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise StoreError(
                f"no Ray cluster answers at {self._address!r} ({one_line(error, 150)}); start one (ray start --head), "
                "or leave out --on to use this machine"
            ) from error
        for number, handler in handlers.items():  # Ray's own end the process without a word
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)
        silence(ray)
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from tuneoff.execute.cluster_machines import ClusterMachines
        from tuneoff.execute.node import Watcher

        self.ray = ray
        is_client = address.startswith("ray://")
        self._head = address if is_client else ray.get_runtime_context().gcs_address
        self._cluster = cluster_id(self._head)
        self.machines = ClusterMachines(self._origin, self._head)
        self._nodes_of_job: dict[str, set[str]] = {}  # Ray's ids of the machines where it has started
        self._checkpoints: dict[str, Place] = {}  # the last one, by run
        self._trained: list[str] = []  # runs whose search has trained them, since the last look
        self._ended: set[str] = set()  # jobs, whose checkpoints are of no use
        self._full: set[str] = set()  # machines that could not keep a checkpoint
        self._told: list[str] = []  # machines that the watcher knows
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # others may die
        self._watcher: Any = (
            ray.remote(Watcher).options(num_cpus=0, max_concurrency=64, scheduling_strategy=here).remote()
        )
        self._parcels: dict[str, list[Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # of machines that are gone
            _check_answers(self._head)
            self.machines.stop(_RPC_SECONDS)
        self.ray.shutdown()

    def check_head(self) -> None:
        """Raise ConnectionLost if the head does not answer, or is another one at the same address.

        One that is slow to answer is asked again. Any other error means that it is gone, and is not waited for, because
        Ray ends this process if it asks a restarted head anything.
        """
        for left in reversed(range(_CONNECT_TRIES)):
            try:
                _check_answers(self._head)
                identity = cluster_id(self._head)
                break
            except (OSError, self.ray.exceptions.RpcError) as error:
                if not (isinstance(error, TimeoutError) and left):
                    raise ConnectionLost(f"the head of the cluster does not answer ({one_line(error, 100)})") from error
        if identity != self._cluster:
            raise ConnectionLost("the head of the cluster was restarted")

    def reconnect(self, check_stop: Callable[[], None]) -> None:
        """Connect to a head that was restarted. Raises StoreError if none answers in time.

        check_stop: called while it waits.
        """
        notice(
            f"the Ray cluster at {self._head} does not answer; waiting up to {_RECONNECT_SECONDS:.0f} s for it to come "
            "back"
        )
        self.ray.shutdown()
        deadline = time.monotonic() + _RECONNECT_SECONDS
        while True:
            check_stop()
            try:
                self._connect(self._head)
                self._tell_watcher(self.machines.meet())
            except StoreError as error:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"the Ray cluster at {self._head} was lost and has not come back within "
                        f"{_RECONNECT_SECONDS:.0f} s; start it again and run the same command: what is stored counts"
                    ) from error
                self.ray.shutdown()
                time.sleep(1.0)
            else:
                notice(f"connected to the Ray cluster at {self._head} again; jobs that ran on it run again")
                return

    @property
    def _origin(self) -> "Origin":
        from tuneoff.execute.node import Origin

        environment = {name: os.environ[name] for name in (*_VARIABLES, *_OWN_VARIABLES) if name in os.environ}
        return Origin(self._session, environment, (socket.gethostname(), str(cache_folder())))

    def slots(self, num_jobs: int, largest_model: int, requested: int | None = None, devices: int = 1) -> Slots:
        """Return the jobs at once on all machines, and the threads of each.

        Raises StoreError for machines with other versions of the libraries that decide results, or too small for a job,
        ConfigError for more devices than the cluster has.
        """
        self._bytes_of_job = bytes_of_job(largest_model)
        nodes = self.machines.meet()
        self._tell_watcher(nodes)
        with_gpus = [node["NodeID"] for node in nodes if node["Resources"].get("GPU")]  # jobs run there only
        self._uses_gpu, self._reserves_memory = bool(with_gpus), True
        share = (self.machines.call(node_id, "jobs_of_gpu", largest_model) for node_id in with_gpus)
        self._jobs_of_gpu = min(share, default=1)
        if len(nodes) == 1 and nodes[0]["NodeManagerHostname"] == socket.gethostname():
            self._reserves_memory = False
            return local_slots(num_jobs, largest_model, requested, devices)  # as without Ray
        reserved = self._reserved(devices)
        room = reserved.room(nodes, threads=1)
        if not room:
            raise StoreError(
                f"no machine of the cluster has the {self._bytes_of_job / 2**30:.1f} GiB of memory"
                f"{' and the GPU' if with_gpus else ''} that a run needs; choose a smaller encoder or a larger machine"
            )
        if devices > room:
            raise ConfigError(
                f"devices {devices} are more than the cluster has room for ({room}); use at most {room}, or add "
                "machines"
            )
        at_once = room // devices
        workers = max(1, min(requested or at_once, at_once, num_jobs))
        threads = reserved.most_threads(nodes, workers * devices)
        used = sum(reserved.fitting(node, threads) > 0 for node in nodes)
        return Slots(workers, threads, devices=devices, machines=min(workers, used))

    def _tell_watcher(self, nodes: "Sequence[Node]") -> None:
        """Say which machines may keep checkpoints."""
        ids = [node["NodeID"] for node in nodes]
        if ids != self._told:
            self._told = ids
            self._watcher.use_machines.remote(ids)

    def _reserved(self, devices: int) -> "Reservation":
        """Return what a job reserves besides cores, or each of its devices."""
        from tuneoff.execute.cluster_machines import Reservation

        share = 1.0 if devices > 1 else 1 / self._jobs_of_gpu
        return Reservation(int(self._bytes_of_job) * self._reserves_memory, share * self._uses_gpu)

    def look_at_machines(self, slots: Slots) -> None:
        """Say which machines have died or joined, and start the agents of those that have none.

        Raises StoreError if those that are left have no room for the devices of a job: Ray would wait for ever.
        """
        nodes = self.machines.look()
        self._tell_watcher(nodes)
        room = self._reserved(slots.devices).room(nodes, slots.threads)
        if room < slots.devices and slots.devices > 1:
            raise StoreError(
                f"a machine has left the cluster, which has room for {room} of the {slots.devices} devices of a run; "
                "stored runs stay: add a machine, or use fewer --devices, and run the same command"
            )
        if not room and self._had_room:
            notice("no machine of the cluster has room for a job now; waiting for one that joins it (Ctrl-C ends)")
        self._had_room = bool(room)

    def execute(self, jobs: Sequence[Job], store: StudyStore, slots: Slots, on_event: Callable[[Event], None]) -> None:
        """Run jobs in order, `slots.workers` at once. A crash is recorded and harms no other job."""
        asked: list[int] = []
        slots = self._within_machines(slots)
        machines = _RayMachines(self, slots, jobs, store, asked)
        # kept until the next look: Ray, which waits in C++, drops what a handler raises
        with stops_call(lambda number, _: asked.append(number)):
            Dispatch(jobs, machines, store, slots.workers, on_event).run()

    def _within_machines(self, slots: Slots) -> Slots:
        """Return slots whose threads are at most the cores of the largest machine: Ray waits for ever for more."""
        largest = max((int(node["Resources"]["CPU"]) for node in self.machines.nodes()), default=slots.threads)
        if slots.threads > largest:
            notice(
                f"jobs get {counted(largest, 'thread')} each, not {slots.threads}: the largest machine has "
                f"{counted(largest, 'core')}"
            )
        return replace(slots, threads=min(slots.threads, largest))

    def sender(self, jobs: Sequence[Job], slots: Slots) -> Callable[[Job, StudyStore, int, bool], Any]:
        """Return a function that submits a job, or a copy of one that runs, to another machine; None if it cannot.

        What the jobs need is put into Ray's object store, once.
        """
        from tuneoff.execute.cluster_devices import run_on_devices
        from tuneoff.execute.node import Inputs, Task, run_there

        for name, packed in parcels_for(job.run for job in jobs).items():
            if name not in self._parcels:
                self._parcels[name] = [self.ray.put(packed())]
        encoders = {n: entry for n, entry in encoder_entries(job.run for job in jobs).items() if entry in self._parcels}
        origin, inputs = self._origin, Inputs(self._parcels, encoders)
        # by Ray, which would send the arguments of the first try, without the trials since
        never: dict[str, Any] = {"max_retries": 0, "scheduling_strategy": "SPREAD"}
        reserved = self._reserved(slots.devices)
        of_one = self._reserved(1)
        alone: dict[str, Any] = {"num_cpus": slots.threads, "num_gpus": of_one.gpus, "memory": of_one.memory or None}
        of_device = {"CPU": slots.threads, "GPU": reserved.gpus, "memory": reserved.memory}
        run_alone, run_together = self.ray.remote(run_there), self.ray.remote(run_on_devices)

        def submit(job: Job, store: StudyStore, halvings: int, is_copy: bool) -> Any:
            avoided = self._nodes_of_job.get(job.job_id, set()) if is_copy else set()
            others = [node for node in self.machines.nodes() if node["NodeID"] not in avoided] if is_copy else []
            if is_copy and (slots.devices > 1 or not of_one.room(others, slots.threads)):
                return None
            search = asdict(store.searches.open(job.new_search)) if job.is_search else None
            stored = pack(store.runs.path(job.job_id)) if only_predicts(job, store) else None
            checkpoint = self._checkpoints.get(job.job_id)
            message = {
                "job_id": job.job_id,
                "job": job.model_dump(mode="json"),
                "threads": slots.threads,
                "halvings": halvings,
                "report_seconds": report_seconds(slots.workers),
            }
            selector = self.machines.selector(avoided)
            if slots.devices > 1 and isinstance(job.run.strategy, GradientConfig) and not stored:
                message |= {"devices": slots.devices, "selector": selector}
                message["resources"] = {name: amount for name, amount in of_device.items() if amount}
                remote = run_together.options(num_cpus=0, **never)
            else:
                remote = run_alone.options(**alone, **never, label_selector=selector)
            return remote.remote(origin, inputs, Task(message, search, stored, checkpoint), self._watcher)

        return submit

    def fetch_reports(self) -> list[dict[str, Any]]:
        """Return what the machines have reported since the last call."""
        try:
            reports = self.ray.get(self._watcher.fetch.remote(), timeout=_RPC_SECONDS)
        except self.ray.exceptions.GetTimeoutError:
            self.check_head()
            return []  # a machine that is busy
        for report in reports:
            if report["kind"] == "kept":
                self._note_checkpoint(report["job_id"], report["place"])
            elif report["kind"] == "not kept":
                self._tell_not_kept(report["node"], report["reason"])
            elif "node" in report:
                self._nodes_of_job.setdefault(report["job_id"], set()).add(report["node"])
        return [
            {**report, "machine": self.machines.name_of(report["node"])} if "node" in report else report
            for report in reports
            if report["kind"] not in ("kept", "not kept")
        ]

    def share_kept(self, job_id: str) -> float:
        """Return the share of a run that its checkpoint has; 0 without one."""
        return self._checkpoints[job_id].share if job_id in self._checkpoints else 0.0

    def trained_runs(self) -> list[str]:
        """Return the runs of whose training, by a search, a machine has told since the last call."""
        trained, self._trained = self._trained, []
        return trained

    def _note_checkpoint(self, run_id: str, place: "Place") -> None:
        """Remember where the checkpoint of a run is, which replaces an earlier one."""
        earlier = self._checkpoints.get(run_id)
        others = [earlier] if earlier and earlier[:2] != place[:2] else []
        is_behind = any(other.share > place.share and self.machines.has(other.node) for other in others)
        if run_id in self._ended or is_behind:  # where it trains on two machines
            self.machines.forget(place)
            return
        self._checkpoints[run_id] = place
        self._trained += [run_id] * (place.share == 1)
        for other in others:
            self.machines.forget(other)

    def _tell_not_kept(self, node_id: str, reason: str) -> None:
        """Tell the user, once for a machine, that it could not keep a checkpoint."""
        if node_id not in self._full:
            self._full.add(node_id)
            notice(
                f"{self.machines.name_of(node_id)} cannot keep checkpoints of another machine's runs ({reason}): until "
                "it can, a run that is lost there goes on from an earlier one, or from its start"
            )

    def forget_checkpoint(self, job_id: str) -> None:
        """Remove the checkpoint of a job that has ended."""
        self._ended.add(job_id)
        if place := self._checkpoints.pop(job_id, None):
            self.machines.forget(place)

    def end_job(self, job_id: str) -> None:
        """End a job that may still run somewhere, though its task is gone."""
        for node_id in self._nodes_of_job.pop(job_id, ()):
            with contextlib.suppress(Exception):  # its machine is gone
                self.machines.end_job(node_id, job_id, _RPC_SECONDS)


class _RayMachines:
    """The machines of a Ray cluster, for the jobs of one call of execute.

    stops: signals that ask this process to stop.
    """

    def __init__(
        self, executor: RayExecutor, slots: Slots, jobs: Sequence[Job], store: StudyStore, stops: Sequence[int]
    ) -> None:
        self._executor, self._slots, self._jobs, self._store, self._stops = executor, slots, jobs, store, stops
        self._looked = self._looked_at_head = time.monotonic()
        self._submit = executor.sender(jobs, slots)
        self._ray = executor.ray
        self._dropped: set[str] = set()  # jobs of which a copy was ended

    def clock(self) -> float:
        """Return the time."""
        return time.monotonic()

    def submit(self, job: Job, halvings: int) -> Any:
        """Submit a task. What still runs of an earlier try, whose task was lost, is ended first."""
        self._executor.end_job(job.job_id)
        with self._noticing_loss():
            return self._submit(job, self._store, halvings, False)

    def submit_copy(self, job: Job, halvings: int) -> Any:
        """Submit a task to another machine than that where the job runs."""
        with self._noticing_loss():
            copy = self._submit(job, self._store, halvings, True)
        if copy is not None:
            notice(f"{job.title} is slow where it runs: it runs on another machine too, and what ends first counts")
        return copy

    def kept(self, job: Job) -> float:
        """Return the share of a run that the last checkpoint has of which a machine has told."""
        return self._executor.share_kept(job.job_id)

    def forget(self, job: Job) -> None:
        """Remove the checkpoint of a job that has ended."""
        self._executor.forget_checkpoint(job.job_id)

    def drop(self, job: Job, handles: Sequence[Any]) -> None:
        """Cancel tasks, and end the processes that they wait for."""
        self.cancel(handles)
        self._executor.end_job(job.job_id)
        self._dropped.add(job.job_id)

    def wait(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Wait a moment for tasks to end, look at the machines now and then, and stop if that is asked for."""
        self._check_stop()
        now = time.monotonic()
        is_time = now - self._looked > _LOOK_SECONDS
        self._look_at_head(0.0 if is_time else _HEAD_SECONDS)
        with self._noticing_loss():
            if is_time:
                self._looked = now
                self._executor.look_at_machines(self._slots)
            ended, _ = self._ray.wait(handles, timeout=_POLL_SECONDS)
            # it returns the first one, also of many
            return self._ray.wait(handles, num_returns=len(handles), timeout=0)[0] if ended else []

    def reports(self) -> Sequence[Mapping[str, Any]]:
        """Fetch what machines have reported."""
        with self._noticing_loss():
            reports = self._executor.fetch_reports()
        for run_id in self._executor.trained_runs():
            self._store.runs.note_trained_elsewhere(run_id)
        for report in reports:
            if report["kind"] == "started" and report["job_id"] in self._dropped:  # as its task was cancelled
                self._executor.end_job(report["job_id"])
        return reports

    def collect(self, job: Job, handle: Any) -> tuple[str, int]:
        """Store the record that came back."""
        of_ray, store = self._ray.exceptions, self._store
        # what was done with the reports may have taken long, and Ray ends this process if it asks a dead object store
        self._look_at_head(_GET_SECONDS)
        with self._noticing_loss():
            try:
                result = self._ray.get(handle)
            except of_ray.RayError as error:
                self._executor.check_head()  # every machine dies with it, which says nothing of the job
                if isinstance(error, of_ray.RayTaskError) and not isinstance(error.cause, of_ray.RayError):
                    raise StoreError(f"job {job.job_id} cannot run on the cluster: {one_line(error, 300)}") from error
                return f"its machine died, or Ray's process on it ({one_line(error, 70)})", LOST
        if "machine" in result:  # which could not run it
            self._executor.machines.leave_out(result["machine"], result["crash"])
        if "search" in result:
            store.searches.write(SearchRecord.from_json(result["search"]))
        elif "run" in result:
            store.runs.adopt(job.job_id, lambda folder: unpack(result["run"], folder))
        return result["crash"], result["code"]

    def cancel(self, handles: Sequence[Any]) -> None:
        """End tasks that run."""
        for handle in handles:
            with contextlib.suppress(Exception):  # of machines that are gone
                self._ray.cancel(handle, force=True)

    def reconnect(self) -> None:
        """Connect to the restarted head."""
        self._executor.reconnect(self._check_stop)
        self._submit = self._executor.sender(self._jobs, self._slots)

    def _look_at_head(self, age: float) -> None:
        """Raise ConnectionLost if the head is lost. age: seconds since the last look within which there is no other."""
        now = time.monotonic()
        if now - self._looked_at_head >= age:
            self._looked_at_head = now
            self._executor.check_head()

    def _check_stop(self) -> None:
        if self._stops:
            raise StopRequested(self._stops[0])

    @contextlib.contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        """A context in which errors of Ray that only a lost head explains are ConnectionLost."""
        of_ray = self._ray.exceptions
        try:
            yield
        except (of_ray.RaySystemError, of_ray.ActorDiedError, of_ray.ActorUnavailableError, of_ray.RpcError) as error:
            raise ConnectionLost(f"the connection to the cluster was lost ({one_line(error, 100)})") from error
        except (of_ray.GetTimeoutError, ConnectionError) as error:
            raise ConnectionLost(f"the cluster does not answer ({one_line(error, 100)})") from error


def report_seconds(workers: int) -> float:
    """Return the seconds between two reports of a job's progress: of all jobs, no more reports than can be read."""
    return max(_REPORT_SECONDS, workers / _REPORTS_A_SECOND)


def _check_answers(address: str) -> None:
    """Raise OSError for an address where nothing answers, for which Ray would wait minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()

"""Executor on a Ray cluster: the same jobs as on one machine, as Ray tasks on whatever machines have room.

Ray schedules, moves data and notices machines that die; nothing here schedules across machines. A task hands its job to
the agent of its machine (node.py). Records come back through Ray and are written here, so that only this process needs
the study's folder. What follows a job that is lost is decided in dispatch.py. When the head is lost, this process
leaves the cluster, waits a minute for the address to answer again, and submits what ran.
"""

import contextlib
import itertools
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

from tuneoff.cache import cache_folder
from tuneoff.compat_ray import cluster_id, silence
from tuneoff.errors import ConfigError, LibraryError, StopRequested, StoreError, one_line
from tuneoff.execute.dispatch import ConnectionLost, Dispatch
from tuneoff.execute.executor import Event, Slots
from tuneoff.execute.job import only_predicts
from tuneoff.execute.local import LOST, bytes_of_job, local_slots
from tuneoff.execute.parcels import encoder_entries, needed, pack, unpack
from tuneoff.formats import counted
from tuneoff.machine import cores, versions
from tuneoff.notices import notice
from tuneoff.runs import StudyStore
from tuneoff.search.record import SearchRecord
from tuneoff.signals import stop_signals, stops_call
from tuneoff.spec.run import Job
from tuneoff.strategies import GradientConfig

if TYPE_CHECKING:
    from tuneoff.execute.node import Origin  # needs Ray

_POLL_SECONDS = 0.2
_AGENT_SECONDS = 120.0  # that an agent may take to start
_CONNECT_SECONDS = 10.0  # that a head may take to answer
_LOOK_SECONDS = 5.0  # between two looks at the machines of the cluster
_HEAD_SECONDS = 1.0  # between two looks at its head
_RECONNECT_SECONDS = 60.0  # that a head may be away
_REPORT_SECONDS, _REPORTS_A_SECOND = 1.0, 50  # of progress: of a job, and of all jobs
_RPC_SECONDS = 10.0  # that an actor on this machine may take to answer
# of the study's own process, on which jobs depend
_VARIABLES = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_SAME_VERSIONS = ("python", "tuneoff", "torch", "transformers")


class RayExecutor:
    """Runs jobs on a Ray cluster. A context manager: it connects when it starts.

    address: "ray" starts Ray on this machine, "auto" finds the cluster that this machine belongs to; else the address
    of a head, host:port or ray://host:port.
    """

    def __init__(self, address: str) -> None:
        self._address, self._session = address, f"tuneoff-{uuid.uuid4().hex[:8]}"
        self._bytes_of_job = 0.0
        self._jobs_of_gpu = 1  # that share one
        self._names: dict[str, str] = {}  # of machines, by Ray's ids
        self._head = ""  # address of the head, host:port
        self._connect()

    def _connect(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise LibraryError(f"{error.name} is not installed; install it with: pip install 'tuneoff[ray]'") from error
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "namespace": self._session}
        address = address or self._address
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

        from tuneoff.execute.node import Watcher

        self.ray = ray
        is_client = address.startswith("ray://")
        self._head = address if is_client else ray.get_runtime_context().gcs_address
        self._cluster = cluster_id(self._head)
        self._agents: dict[str, Any] = {}  # by Ray's id of the machine; an agent ends with the last reference to it
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
            self.ray.get([agent.stop.remote() for agent in self._agents.values()], timeout=10)
        self.ray.shutdown()

    def check_head(self) -> None:
        """Raise ConnectionLost if the head does not answer, or is another one at the same address."""
        try:
            _check_answers(self._head)
            identity = cluster_id(self._head)
        except (OSError, self.ray.exceptions.RpcError) as error:
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
                self._check(self._nodes())
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

        environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        return Origin(self._session, environment, (socket.gethostname(), str(cache_folder())))

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    def slots(self, num_jobs: int, largest_model: int, requested: int | None = None, devices: int = 1) -> Slots:
        """Return the jobs at once on all machines, and the threads of each.

        Raises StoreError for machines with other versions of the libraries that decide results, or too small for a job,
        ConfigError for more devices than the cluster has.
        """
        self._bytes_of_job = bytes_of_job(largest_model)
        nodes = self._nodes()
        self._check(nodes)
        with_gpus = [node for node in nodes if node["Resources"].get("GPU")]
        asked = [self._agents[node["NodeID"]].jobs_of_gpu.remote(largest_model) for node in with_gpus]
        self._jobs_of_gpu = min(self.ray.get(asked, timeout=_AGENT_SECONDS), default=1)
        if len(nodes) == 1 and nodes[0]["NodeManagerHostname"] == socket.gethostname():
            return local_slots(num_jobs, largest_model, requested, devices)  # as without Ray
        fitting = [
            int(min(n["Resources"]["CPU"], n["Resources"].get("memory", 0) // self._bytes_of_job)) for n in nodes
        ]
        if with_gpus:  # jobs run on machines with GPUs only
            gpus = [int(self._jobs_of_gpu * node["Resources"].get("GPU", 0)) for node in nodes]
            fitting = list(map(min, fitting, gpus))
        if not any(fitting):
            raise StoreError(
                f"no machine of the cluster has the {self._bytes_of_job / 2**30:.1f} GiB of memory"
                f"{' and the GPU' if with_gpus else ''} that a run needs; choose a smaller encoder or a larger machine"
            )
        room = int(self.ray.cluster_resources().get("GPU", 0)) or sum(fitting) if devices > 1 else sum(fitting)
        if devices > room:
            raise ConfigError(
                f"devices {devices} are more than the cluster has room for ({room}); use at most {room}, or add "
                "machines"
            )
        at_once = room // devices
        workers = max(1, min(requested or at_once, at_once, num_jobs))
        cores_of = [int(node["Resources"]["CPU"]) for node, count in zip(nodes, fitting, strict=True) if count]
        machines = min(workers, len(cores_of))
        threads = max(1, min(*cores_of, sum(cores_of) // (workers * devices)))
        return Slots(workers, threads, devices=devices, machines=machines)

    def look_at_machines(self, slots: Slots) -> None:
        """Say which machines have died or joined, and hold the agents of those that are there.

        Raises StoreError if those that are left have no room for the devices of a job.
        """
        nodes, before = self._nodes(), set(self._agents)
        self._hold_agents(nodes)
        for node in before - set(self._agents):
            notice(f"machine {self.name_of(node)} of the cluster is gone; {counted(len(nodes), 'machine')} left")
        for node in set(self._agents) - before:
            notice(f"machine {self.name_of(node)} has joined the cluster")
        _check_room(nodes, slots)

    def name_of(self, node: str) -> str:
        """Return the name of a machine: its host's, with a number if several Ray nodes are on one host."""
        return self._names.get(node, node[:8])

    def _hold_agents(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Hold the agents of all machines, also of those that have joined."""
        from tuneoff.execute.node import agent_of

        for node in nodes:
            if node["NodeID"] not in self._names:
                host, taken = node["NodeManagerHostname"], set(self._names.values())
                names = (host if number == 1 else f"{host} ({number})" for number in itertools.count(1))
                self._names[node["NodeID"]] = next(name for name in names if name not in taken)
        present = {node["NodeID"] for node in nodes}
        self._agents = {node: agent for node, agent in self._agents.items() if node in present}
        self._agents |= {node: agent_of(self._origin, node) for node in present if node not in self._agents}

    def _check(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        self._hold_agents(nodes)
        ours = versions()
        for node in nodes:
            host = node["NodeManagerHostname"]
            try:
                theirs = self.ray.get(self._agents[node["NodeID"]].versions.remote(), timeout=_AGENT_SECONDS)
            except Exception as error:  # Ray raises many types
                raise StoreError(
                    f"machine {host} of the cluster cannot run jobs ({one_line(error, 200)}); install tuneoff "
                    f"{ours.get('tuneoff', '')} there"
                ) from error
            for library in _SAME_VERSIONS:
                if theirs.get(library) != ours.get(library):
                    raise StoreError(
                        f"machine {host} of the cluster has {library} {theirs.get(library)}, and this one "
                        f"{ours.get(library)}; results would differ: install the same version on all"
                    )

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
        largest = max(int(node["Resources"]["CPU"]) for node in self._nodes())
        if slots.threads > largest:
            notice(f"jobs get {largest} threads each, not {slots.threads}: the largest machine has {largest} cores")
        return replace(slots, threads=min(slots.threads, largest))

    def sender(self, jobs: Sequence[Job], slots: Slots) -> Callable[[Job, StudyStore, int], Any]:
        """Return a function that submits a job, with what the jobs need put into Ray's object store, once."""
        from tuneoff.execute.cluster_devices import run_on_devices
        from tuneoff.execute.node import Inputs, Task, run_there

        for name, packed in needed(job.run for job in jobs).items():
            if name not in self._parcels:
                self._parcels[name] = [self.ray.put(packed())]
        encoders = {n: entry for n, entry in encoder_entries(job.run for job in jobs).items() if entry in self._parcels}
        origin, inputs = self._origin, Inputs(self._parcels, encoders)
        # by Ray, which would send the arguments of the first try, without the trials since
        never: dict[str, Any] = {"max_retries": 0, "scheduling_strategy": "SPREAD"}
        num_gpus = 1 if self.ray.cluster_resources().get("GPU") else 0
        share = num_gpus / self._jobs_of_gpu
        memory = int(self._bytes_of_job) if len(self._nodes()) > 1 else None
        alone = self.ray.remote(run_there).options(num_cpus=slots.threads, num_gpus=share, memory=memory, **never)
        together = self.ray.remote(run_on_devices).options(num_cpus=0, **never)
        resources = {"CPU": slots.threads} | ({"GPU": 1} if num_gpus else {}) | ({"memory": memory} if memory else {})

        def submit(job: Job, store: StudyStore, halvings: int) -> Any:
            search = asdict(store.searches.open(job.new_search)) if job.is_search else None
            stored = pack(store.runs.path(job.job_id)) if only_predicts(job, store) else None
            message = {
                "job_id": job.job_id,
                "job": job.model_dump(mode="json"),
                "threads": slots.threads,
                "halvings": halvings,
                "report_seconds": report_seconds(slots.workers),
            }
            remote = alone
            if slots.devices > 1 and isinstance(job.run.strategy, GradientConfig) and not stored:
                remote, message = together, {**message, "devices": slots.devices, "resources": resources}
            return remote.remote(origin, inputs, Task(message, search, stored), self._watcher)

        return submit

    def fetch_reports(self) -> list[dict[str, Any]]:
        """Return what the machines have reported since the last call."""
        reports = self.ray.get(self._watcher.fetch.remote(), timeout=_RPC_SECONDS)
        return [
            {**report, "machine": self.name_of(report["node"])} if "node" in report else report for report in reports
        ]


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

    def submit(self, job: Job, halvings: int) -> Any:
        """Submit a task."""
        with self._noticing_loss():
            return self._submit(job, self._store, halvings)

    def wait(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Wait a moment for tasks to end, look at the machines now and then, and stop if that is asked for."""
        self._check_stop()
        now = time.monotonic()
        is_time = now - self._looked > _LOOK_SECONDS
        if is_time or now - self._looked_at_head > _HEAD_SECONDS:
            self._looked_at_head = now
            self._executor.check_head()
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
            return self._executor.fetch_reports()

    def collect(self, job: Job, handle: Any) -> tuple[str, int]:
        """Store the record that came back."""
        of_ray, store = self._ray.exceptions, self._store
        died = (of_ray.NodeDiedError, of_ray.ActorDiedError, of_ray.ActorUnavailableError)
        with self._noticing_loss():
            try:
                result = self._ray.get(handle)
            except (*died, of_ray.WorkerCrashedError, of_ray.OutOfMemoryError, of_ray.ObjectLostError) as error:
                self._executor.check_head()  # every machine dies with it, which says nothing of the job
                return f"its machine died, or Ray's process on it ({one_line(error, 70)})", LOST
            except of_ray.RayTaskError as error:
                self._executor.check_head()
                raise StoreError(f"job {job.job_id} cannot run on the cluster: {one_line(error, 300)}") from error
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


def _check_room(nodes: Sequence[Mapping[str, Any]], slots: Slots) -> None:
    """Raise StoreError if machines have left and those that stay cannot hold the devices of a job: Ray would wait."""
    room = sum(int(node["Resources"]["CPU"] // slots.threads) for node in nodes)
    if room < slots.devices and slots.devices > 1:
        raise StoreError(
            f"a machine has left the cluster, which has room for {room} of the {slots.devices} devices of a run; "
            "stored runs stay: add a machine, or use fewer --devices, and run the same command"
        )


def _check_answers(address: str) -> None:
    """Raise OSError for an address where nothing answers, for which Ray would wait minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()

"""Executor on a Ray cluster: the same jobs as on one machine, as Ray tasks on whatever machines have room.

Ray schedules, moves data and notices machines that die; nothing here schedules across machines. A task hands its job to
the agent of its machine (node.py). Records come back through Ray and are written here, so that only this process needs
the study's folder. A job whose machine dies is submitted again with what is stored by then, so that a search goes on
with its next trial; a job that kills its process, or loses its machine, three times is failed.
"""

import contextlib
import os
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Self

from tuneoff.cache import cache_folder
from tuneoff.errors import ConfigError, LibraryError, StopRequested, StoreError, one_line
from tuneoff.execute.executor import Event, Slots
from tuneoff.execute.job import is_finished, only_predicts, record_crash, stored_record
from tuneoff.execute.local import KILLED, LOST, bytes_of_job, local_slots
from tuneoff.execute.parcels import encoder_entries, needed, pack, unpack
from tuneoff.machine import cores, versions
from tuneoff.notices import notice
from tuneoff.runs import StudyStore
from tuneoff.search.record import SearchRecord
from tuneoff.signals import stop_signals, stops_call
from tuneoff.spec.run import Job
from tuneoff.strategies import GradientConfig

_POLL_SECONDS = 0.2
_AGENT_SECONDS = 120.0  # that an agent may take to start
_CONNECT_SECONDS = 10.0  # that a head may take to answer
_LOOK_SECONDS = 5.0  # between two looks at the machines of the cluster
_MAX_CRASHES = 3  # of the process or the machine of one job; then it is stored as failed
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
        self._parcels: dict[str, list[Any]] = {}
        self._connect()

    def _connect(self) -> None:
        try:
            import ray
        except ImportError as error:
            raise LibraryError(f"{error.name} is not installed; install it with: pip install 'tuneoff[ray]'") from error
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "namespace": self._session}
        if self._address == "ray":
            options |= {"address": "local", "include_dashboard": False, "num_cpus": cores()}
        else:
            options |= {"address": self._address}
        handlers = {number: signal.getsignal(number) for number in stop_signals()}
        try:
            _check_answers(self._address)
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise StoreError(
                f"no Ray cluster answers at {self._address!r} ({one_line(error, 150)}); start one (ray start --head), "
                "or leave out --on to use this machine"
            ) from error
        for number, handler in handlers.items():  # Ray's own end the process without a word
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from tuneoff.execute.node import Watcher

        self._ray = ray
        self._agents: dict[str, Any] = {}  # by Ray's id of the machine; an agent ends with the last reference to it
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # others may die
        self._watcher: Any = (
            ray.remote(Watcher).options(num_cpus=0, max_concurrency=64, scheduling_strategy=here).remote()
        )
        self._parcels = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # of machines that are gone
            self._ray.get([agent.stop.remote() for agent in self._agents.values()], timeout=10)
        self._ray.shutdown()

    @property
    def _home(self) -> tuple[dict[str, str], tuple[str, str]]:
        environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        return environment, (socket.gethostname(), str(cache_folder()))

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    def slots(self, num_jobs: int, largest_model: int, requested: int | None = None, devices: int = 1) -> Slots:
        """Return the jobs at once on all machines, and the threads of each.

        Raises StoreError for machines with other versions of the libraries that decide results, or too small for a job,
        ConfigError for more devices than the cluster has.
        """
        self._bytes_of_job = bytes_of_job(largest_model)
        nodes = self._nodes()
        self._check(nodes)
        if len(nodes) == 1 and nodes[0]["NodeManagerHostname"] == socket.gethostname():
            return local_slots(num_jobs, largest_model, requested, devices)  # as without Ray
        fitting = [
            int(min(n["Resources"]["CPU"], n["Resources"].get("memory", 0) // self._bytes_of_job)) for n in nodes
        ]
        if not any(fitting):
            raise StoreError(
                f"no machine of the cluster has the {self._bytes_of_job / 2**30:.1f} GiB of memory that a run needs; "
                "choose a smaller encoder or a larger machine"
            )
        room = int(self._ray.cluster_resources().get("GPU", 0)) or sum(fitting) if devices > 1 else sum(fitting)
        if devices > room:
            raise ConfigError(
                f"devices {devices} are more than the cluster has room for ({room}); use at most {room}, or add "
                "machines"
            )
        at_once = room // devices
        workers = max(1, min(requested or at_once, at_once, num_jobs))
        total = sum(int(node["Resources"]["CPU"]) for node in nodes)
        smallest = min(int(n["Resources"]["CPU"]) for n, count in zip(nodes, fitting, strict=True) if count)
        return Slots(workers, max(1, min(smallest, total // (workers * devices))), devices=devices)

    def _hold_agents(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Hold the agents of all machines, also of those that have joined."""
        from tuneoff.execute.node import agent_of

        present = {node["NodeID"] for node in nodes}
        self._agents = {node: agent for node, agent in self._agents.items() if node in present}
        self._agents |= {
            node: agent_of(self._session, node, *self._home) for node in present if node not in self._agents
        }

    def _check(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        self._hold_agents(nodes)
        ours = versions()
        for node in nodes:
            host = node["NodeManagerHostname"]
            try:
                theirs = self._ray.get(self._agents[node["NodeID"]].versions.remote(), timeout=_AGENT_SECONDS)
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
        waiting, running, is_started = list(jobs), dict[Any, Job](), set[str]()
        crashes, killed, asked = Counter[str](), set[str](), list[int]()
        slots = self._within_machines(slots)
        submit, looked = self._task(slots, jobs), time.monotonic()

        def end(job: Job, reference: Any) -> None:
            """Store what came back, and announce it, or wait for another try."""
            if job.job_id not in is_started:  # its report is on the way
                on_event(Event("started", job))
            is_started.discard(job.job_id)
            crash, code = self._fetch(job, reference, store)
            crashes[job.job_id] += bool(crash)
            if code == KILLED:
                killed.add(job.job_id)
            # a search whose process dies is stored with a failed trial, which may be the reason
            if crash and crashes[job.job_id] < _MAX_CRASHES and (code == LOST or not job.is_search):
                waiting.insert(0, job)
                return
            record = record_crash(job, store, crash) if crash else stored_record(job, store)
            on_event(Event("done", job, share=1.0, record=record))
            if crash and job.is_search and not is_finished(job, store):
                waiting.insert(0, job)  # a search whose trial crashed goes on with its next trial

        # kept until the next look: Ray, which waits in C++, drops what a handler raises
        with stops_call(lambda number, _: asked.append(number)), self._cancelled_at_the_end(running):
            while waiting or running:
                while waiting and len(running) < slots.workers:
                    job = waiting.pop(0)
                    running[submit(job, store, int(job.job_id in killed))] = job
                if time.monotonic() - looked > _LOOK_SECONDS:
                    nodes = self._nodes()
                    self._hold_agents(nodes)
                    _check_room(nodes, slots)
                    looked = time.monotonic()
                if asked:
                    raise StopRequested(asked[0])
                ended, _ = self._ray.wait(list(running), timeout=_POLL_SECONDS)
                self._report({job.job_id: job for job in running.values()}, is_started, store, on_event)
                for reference in ended:
                    end(running.pop(reference), reference)

    @contextlib.contextmanager
    def _cancelled_at_the_end(self, running: Mapping[Any, Job]) -> Iterator[None]:
        try:
            yield
        finally:
            for reference in running:
                with contextlib.suppress(Exception):  # of machines that are gone
                    self._ray.cancel(reference, force=True)

    def _fetch(self, job: Job, reference: Any, store: StudyStore) -> tuple[str, int]:
        """Store the record that came back. Returns the reason of a crash, or "", and the exit code of the process."""
        of_ray = self._ray.exceptions
        died = (of_ray.NodeDiedError, of_ray.ActorDiedError, of_ray.ActorUnavailableError)
        try:
            result = self._ray.get(reference)
        except (*died, of_ray.WorkerCrashedError, of_ray.OutOfMemoryError, of_ray.ObjectLostError) as error:
            return f"its machine died, or Ray's process on it ({one_line(error, 150)})", LOST
        except of_ray.RayTaskError as error:
            raise StoreError(f"job {job.job_id} cannot run on the cluster: {one_line(error, 300)}") from error
        if "search" in result:
            store.searches.write(SearchRecord.from_json(result["search"]))
        elif "run" in result:
            store.runs.adopt(job.job_id, lambda folder: unpack(result["run"], folder))
        return result["crash"], result["code"]

    def _within_machines(self, slots: Slots) -> Slots:
        """Return slots whose threads are at most the cores of the largest machine: Ray waits for ever for more."""
        largest = max(int(node["Resources"]["CPU"]) for node in self._nodes())
        if slots.threads > largest:
            notice(f"jobs get {largest} threads each, not {slots.threads}: the largest machine has {largest} cores")
        return replace(slots, threads=min(slots.threads, largest))

    def _task(self, slots: Slots, jobs: Sequence[Job]) -> Callable[[Job, StudyStore, int], Any]:
        """Return a function that submits a job, with what the jobs need put into Ray's object store, once."""
        from tuneoff.execute.cluster_devices import run_on_devices
        from tuneoff.execute.node import run_there

        for name, packed in needed(job.run for job in jobs).items():
            if name not in self._parcels:
                self._parcels[name] = [self._ray.put(packed())]
        encoders = {n: entry for n, entry in encoder_entries(job.run for job in jobs).items() if entry in self._parcels}
        # by Ray, which would send the arguments of the first try, without the trials since
        never: dict[str, Any] = {"max_retries": 0, "scheduling_strategy": "SPREAD"}
        num_gpus = 1 if self._ray.cluster_resources().get("GPU") else 0
        memory = int(self._bytes_of_job) if len(self._nodes()) > 1 else None
        alone = self._ray.remote(run_there).options(num_cpus=slots.threads, num_gpus=num_gpus, memory=memory, **never)
        together = self._ray.remote(run_on_devices).options(num_cpus=0, **never)
        resources = {"CPU": slots.threads} | ({"GPU": 1} if num_gpus else {}) | ({"memory": memory} if memory else {})

        def submit(job: Job, store: StudyStore, halvings: int) -> Any:
            search = asdict(store.searches.open(job.new_search)) if job.is_search else None
            stored = pack(store.runs.path(job.job_id)) if only_predicts(job, store) else None
            message = {
                "job_id": job.job_id,
                "job": job.model_dump(mode="json"),
                "threads": slots.threads,
                "halvings": halvings,
            }
            remote = alone
            if slots.devices > 1 and isinstance(job.run.strategy, GradientConfig) and not stored:
                remote, message = together, {**message, "devices": slots.devices, "resources": resources}
            return remote.remote(
                self._session, *self._home, self._parcels, encoders, message, search, stored, self._watcher
            )

        return submit

    def _report(
        self, running: Mapping[str, Job], is_started: set[str], store: StudyStore, on_event: Callable[[Event], None]
    ) -> None:
        """Pass on what the machines reported of running jobs, and store the trials of searches."""
        for event in self._ray.get(self._watcher.fetch.remote()):
            job = running.get(event["job_id"])
            if job is None:  # a report that came after the job's end
                continue
            if event["kind"] == "started":
                if job.job_id not in is_started:  # not a task that is retried
                    on_event(Event("started", job))
                is_started.add(job.job_id)
            elif event["kind"] == "progress":
                on_event(Event("progress", job, share=event["share"]))
            else:
                store.searches.write(SearchRecord.from_json(event["record"]))


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

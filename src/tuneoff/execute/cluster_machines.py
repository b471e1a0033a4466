"""Machines of a Ray cluster, as the study's own process sees them: agents, names, versions, and room for jobs.

Agents are started here alone: an agent ends with the process that started it, so that one that a task had started would
end with the task. A machine on which a job cannot be run is left out from then on.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from tuneoff.errors import StoreError, one_line
from tuneoff.execute.keeping import Place
from tuneoff.execute.node import Origin, start_agent
from tuneoff.formats import counted
from tuneoff.machine import versions
from tuneoff.notices import notice

_AGENT_SECONDS = 120.0  # that an agent may take to start
_SAME_VERSIONS = ("python", "tuneoff", "torch", "transformers")
_NODE_ID = "ray.io/node-id"  # label that Ray gives each machine

Node = Mapping[str, Any]  # a machine, as ray.nodes() describes it


@dataclass(frozen=True)
class Reservation:
    """What a job reserves of a machine besides its cores; one of several devices, too."""

    memory: int = 0  # bytes; 0: nothing
    gpus: float = 0.0  # a fraction where several jobs share one

    def room(self, nodes: Sequence[Node], threads: int) -> int:
        """Return how many jobs of that many threads run at once on machines."""
        return sum(self.fitting(node, threads) for node in nodes)

    def fitting(self, node: Node, threads: int) -> int:
        """Return how many jobs run at once on a machine."""
        resources = node["Resources"]
        limits = [resources.get("CPU", 0) // threads]
        if self.memory:
            limits.append(resources.get("memory", 0) // self.memory)
        if self.gpus:
            limits.append(resources.get("GPU", 0) / self.gpus + 1e-9)  # thirds of a GPU
        return int(min(limits))

    def most_threads(self, nodes: Sequence[Node], jobs: int) -> int:
        """Return the most threads with which that many jobs run at once; a job is on one machine. At least 1."""
        most = max((int(node["Resources"]["CPU"]) for node in nodes), default=1)
        return next((threads for threads in range(most, 1, -1) if self.room(nodes, threads) >= jobs), 1)


class ClusterMachines:
    """The machines that one connection to a cluster has seen."""

    def __init__(self, origin: Origin, head: str) -> None:
        """head: address, for messages."""
        self._origin, self._head = origin, head
        self._agents: dict[str, Any] = {}  # by Ray's id of the machine; an agent ends with the last reference to it
        self._names: dict[str, str] = {}
        self._present: set[str] = set()  # at the last look
        self._left_out: dict[str, str] = {}  # -> the reason

    def nodes(self) -> list[Node]:
        """Return the machines that may get jobs."""
        return [
            node
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU") and node["NodeID"] not in self._left_out
        ]

    def name_of(self, node_id: str) -> str:
        """Return the name of a machine: its host's, with a number if several Ray nodes are on one host."""
        return self._names.get(node_id, node_id[:8])

    def meet(self) -> list[Node]:
        """Start the agents of all machines, and return the machines.

        Raises StoreError if there is none, for one that does not answer, and for one with other versions of the
        libraries that decide results.
        """
        nodes = self.nodes()
        self._hold_agents(nodes)
        if not nodes:
            raise StoreError(
                f"the cluster at {self._head} has no machine with cores now; one that starts machines when they are "
                "needed has to keep at least one (minReplicas: 1)"
            )
        for node in nodes:
            problem = self._problem_of(node)
            if problem:
                raise StoreError(problem)
        return nodes

    def look(self) -> list[Node]:
        """Say which machines have died or joined, start the agents of those that have none, and return the machines.

        One that has joined and cannot run jobs is left out.
        """
        nodes, before = self.nodes(), self._present
        self._hold_agents(nodes)
        for node_id in before - self._present - set(self._left_out):
            notice(f"machine {self.name_of(node_id)} of the cluster is gone; {counted(len(nodes), 'machine')} left")
        joined = [node for node in nodes if node["NodeID"] not in before]
        for node in joined:
            notice(f"machine {self.name_of(node['NodeID'])} has joined the cluster")
            problem = self._problem_of(node)
            if problem:
                self.leave_out(node["NodeID"], problem)
                ray.kill(self._agents.pop(node["NodeID"]))  # jobs that Ray has sent there already run elsewhere
        return self.nodes() if joined else nodes

    def leave_out(self, node_id: str, reason: str) -> None:
        """Send no more jobs to a machine. Raises StoreError if there is no other."""
        if node_id in self._left_out:
            return
        self._left_out[node_id] = reason
        if not self.nodes():
            raise StoreError(f"no machine of the cluster at {self._head} can run jobs: {reason}")
        notice(f"machine {self.name_of(node_id)} gets no more jobs: {reason}")

    def selector(self, avoided: Iterable[str] = ()) -> dict[str, str] | None:
        """Return the label selector of Ray for the machines that may get a job; None if all of them may.

        avoided: Ray's ids of machines that may not, besides those that are left out.
        """
        excluded = [*self._left_out, *avoided]
        return {_NODE_ID: f"!in({','.join(excluded)})"} if excluded else None

    def call(self, node_id: str, method: str, *args: Any) -> Any:
        """Call a method of a machine's agent and return its result. Raises StoreError if that fails."""
        try:
            return ray.get(getattr(self._agents[node_id], method).remote(*args), timeout=_AGENT_SECONDS)
        except Exception as error:  # Ray raises many types
            raise StoreError(
                f"machine {self.name_of(node_id)} of the cluster cannot run jobs ({_cause(error)})"
            ) from error

    def has(self, node_id: str) -> bool:
        """Return True if a machine was there at the last look."""
        return node_id in self._agents

    def forget(self, place: Place) -> None:
        """Remove a checkpoint, unless its machine is gone."""
        if self.has(place.node):
            self._agents[place.node].forget.remote(place.name)

    def end_job(self, node_id: str, job_id: str, seconds: float) -> None:
        """End a job whose task is gone, if it still runs. seconds: that the agent may take."""
        if node_id in self._agents:
            ray.get(self._agents[node_id].end.remote(job_id), timeout=seconds)

    def stop(self, seconds: float) -> None:
        """End all agents and what they run."""
        ray.get([agent.stop.remote() for agent in self._agents.values()], timeout=seconds)

    def _hold_agents(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if node["NodeID"] not in self._names:
                host, taken = node["NodeManagerHostname"], set(self._names.values())
                names = (host if number == 1 else f"{host} ({number})" for number in itertools.count(1))
                self._names[node["NodeID"]] = next(name for name in names if name not in taken)
        self._present = {node["NodeID"] for node in nodes}
        kept = self._present | set(self._left_out)  # jobs that run on a machine that is left out may end
        self._agents = {node_id: agent for node_id, agent in self._agents.items() if node_id in kept}
        for node_id in self._present - set(self._agents):
            self._agents[node_id] = start_agent(self._origin, node_id)

    def _problem_of(self, node: Node) -> str:
        """Return why a machine cannot run jobs of this study; "" if it can."""
        ours, name = versions(), self.name_of(node["NodeID"])
        try:
            theirs = self.call(node["NodeID"], "versions")
        except StoreError as error:
            return f"{error}; install tuneoff {ours.get('tuneoff', '')} there"
        for library in _SAME_VERSIONS:
            if _public(theirs.get(library)) != _public(ours.get(library)):
                return (
                    f"machine {name} of the cluster has {library} {theirs.get(library)}, and this one "
                    f"{ours.get(library)}; results would differ: install the same version on all"
                )
        return ""


def _public(version: str | None) -> str | None:
    """Return a version without the kind of build: torch 2.13.0+cpu and 2.13.0+cu130 compute by the same code.

    >>> _public("2.13.0+cpu")
    '2.13.0'
    """
    return version and version.partition("+")[0]


def _cause(error: Exception) -> str:
    """Return in one line what an agent raised, without Ray's traceback."""
    cause = getattr(error, "cause", None)
    return one_line(cause if isinstance(cause, Exception) else error, 200)

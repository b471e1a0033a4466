"""Studies on a Ray cluster: what Ray costs, a simulation of up to 1,000 machines, and real small clusters on this one.

costs: seconds of the calls of Ray that the study's process makes, on a Ray of this machine.
simulation: the real loop that gives jobs to machines (execute/dispatch.py), the real progress and the real unpacking
and reading of records, on a clock of its own (cluster_clock.py). Machines and Ray are simulated: runs are the stored
seconds of a real study's runs, repeated with 10 % of variation.
real: a study of 32 runs on this machine alone and on 1, 2 and 4 Ray nodes of one core; how long a run waits after its
node was killed.
"""

import argparse
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from cluster_clock import ClockMachines, Costs, Faults, Training
from rich.console import Console

from tuneoff.cli.progress import StudyProgress
from tuneoff.execute.dispatch import Dispatch
from tuneoff.execute.estimate import Estimate
from tuneoff.execute.executor import Event, Slots
from tuneoff.execute.local import LocalExecutor
from tuneoff.execute.parcels import pack, unpack
from tuneoff.plan import Plan
from tuneoff.runs import OK, RunRecord, StudyStore
from tuneoff.spec.file import study_from
from tuneoff.spec.run import Job, RunSpec
from tuneoff.study import Study

FAULTS = {
    "none": Faults(),
    "stragglers and failures": Faults(slow_machines=0.02, dying_machines=0.02, killed_runs=0.005),
}
# without frozen blocks, whose outputs machines would share on one machine and not on several
REAL: dict[str, Any] = {
    "strategies": ["full", "lora", "adapter", "bitfit"],
    "limits": {"train": 240, "validation": 60, "test": 60},
    "epochs": 2,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["costs", "simulation", "real"], help="costs, simulation, real")
    parser.add_argument("--study", type=Path, help="folder of a stored study, whose runs are simulated")
    parser.add_argument("--machines", default="10,100,1000", help="numbers of simulated machines")
    parser.add_argument("--runs", type=int, default=10_000, help="simulated runs")
    parser.add_argument("--nodes", default="1,2,4", help="numbers of real nodes")
    parser.add_argument("--seeds", type=int, default=8, help="of the real study, of each of four strategies")
    parser.add_argument("--out", type=Path, help="JSON file of the figures; costs in it are used by the simulation")
    options = parser.parse_args()
    figures = json.loads(options.out.read_text()) if options.out and options.out.is_file() else {}
    for part in options.parts:
        started = time.perf_counter()
        if part == "costs":
            figures[part] = asdict(measure_costs())
            print(json.dumps(figures[part], indent=1))
        elif part == "simulation":
            if options.study is None:
                sys.exit("give --study FOLDER, a stored study whose runs are simulated")
            costs = Costs(**figures.get("costs", {}))
            machines = [int(number) for number in options.machines.split(",")]
            figures[part] = simulations(options.study, machines, options.runs, costs)
        else:
            figures[part] = measure_real([int(number) for number in options.nodes.split(",")], options.seeds)
        figures.setdefault("took_seconds", {})[part] = time.perf_counter() - started
        print(f"{part}: {time.perf_counter() - started:.0f} s", flush=True)
        if options.out:
            figures["versions"] = {"python": platform.python_version(), "ray": _version("ray")}
            options.out.write_text(json.dumps(figures, indent=1))


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


# ---- costs


def measure_costs() -> Costs:
    """Measure calls of Ray that the loop makes, on a Ray of this machine with one core."""
    import ray

    from tuneoff.execute.node import Watcher

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        watcher = ray.remote(Watcher).options(num_cpus=0, max_concurrency=64).remote()
        ray.get(watcher.fetch.remote())

        @ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")
        def sleep(seconds: float, _: Any = None) -> bytes:
            time.sleep(seconds)
            return bytes(300_000)

        ray.get(sleep.remote(0.0))
        results = [sleep.remote(0.0) for _ in range(20)]
        ray.wait(results, num_returns=len(results))
        get = median_seconds(lambda: ray.get(results.pop()), 20)
        message = {"job": {"run": {str(n): "x" * 40 for n in range(40)}}}
        submit, waits, pending = 0.0, {}, [sleep.remote(3600.0)]
        for count in (10, 1000):
            started, before = time.perf_counter(), len(pending)
            pending += [sleep.remote(3600.0, message) for _ in range(count - before)]
            submit = (time.perf_counter() - started) / (count - before)
            # twice in a round in which a job ended: for the first of them, and for all
            waits[count] = 2 * median_seconds(lambda: ray.wait(pending, timeout=0), 20)  # noqa: B023
        fetch = median_seconds(lambda: ray.get(watcher.fetch.remote()), 20)
        ray.get([watcher.progress.remote("full-01234567-s0", 0.5) for _ in range(2000)])
        many = median_seconds(lambda: ray.get(watcher.fetch.remote()), 1)
        slope = max(0.0, (waits[1000] - waits[10]) / 990)
        return Costs(submit, max(0.0, waits[10] - 10 * slope), slope, fetch, max(0.0, many - fetch) / 2000, get)
    finally:
        ray.shutdown()


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Time a call some times."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


# ---- simulation


def simulations(study: Path, machines: list[int], num_runs: int, costs: Costs) -> dict[str, Any]:
    """Simulate a study of many seeds, and say where its limits are."""
    records = stored_records(study)
    parcels = parcels_of(study, records)
    print(f"{'strategy':<12}{'seconds':>9}{'bytes back':>12}{'its model':>12}")
    for name, of_strategy in records.items():
        model = max(record.costs.get("model_bytes", 0) for record in of_strategy)
        print(f"{name:<12}{mean_seconds(of_strategy):>9.1f}{len(parcels[name]):>12,}{model:>12,.0f}")
    rows: list[dict[str, Any]] = []
    print(
        f"\n{'machines':>8}  {'faults':<24}{'a run':>7}{'whole':>9}{'efficiency':>11}{'head busy':>10}{'ms a run':>9}"
        f"{'deaths':>7}{'recovery: median, max':>23}{'killed':>7}{'resumed':>8}{'copies':>7}{'stored':>8}{'failed':>7}"
    )
    plans = [(number, faults, 1.0) for number in machines for faults in FAULTS]
    plans += [(max(machines), "none", scale) for scale in (0.3, 0.1, 0.03)]  # where does the head become the limit?
    for number, faults, scale in plans:
        row = simulate(records, parcels, number, num_runs, costs, faults, scale)
        rows.append(row)
        recovery = f"{row['recovery_median']:.0f} s, {row['recovery_max']:.0f} s" if row["deaths"] else ""
        print(
            f"{number:>8}  {faults:<24}{row['run_seconds']:>5.1f} s{row['seconds']:>7,.0f} s{row['efficiency']:>10.1%}"
            f"{row['head_busy']:>10.1%}{1000 * row['head_seconds_per_run']:>9.1f}{row['deaths']:>7}{recovery:>23}"
            f"{row['killed']:>7}{row['resumed']:>8}{row['copies']:>7}{row['stored']:>8,}{row['failed']:>7}",
            flush=True,
        )
    model = measure_model(91_600_000)
    print(
        f"a run with a model of 91.6 MB: {model['pack']:.2f} s to pack on its machine, {model['unpack']:.2f} s of the "
        f"study's process to store, {model['bytes'] / costs.bytes_per_second:.2f} s of 1 Gbit/s"
    )
    return {"runs": rows, "model": model, "costs": asdict(costs)}


def stored_records(study: Path) -> dict[str, list[RunRecord]]:
    """Read the runs of a study, by strategy. Strategies without seeds run once, and are left out."""
    store, by_strategy = StudyStore(study).runs, dict[str, list[RunRecord]]()
    for folder in sorted(store.folder.glob("[!.]*")):
        record = store.record(folder.name)
        if record.status == OK and record.model and record.strategy != "probe":
            by_strategy.setdefault(record.strategy, []).append(record)
    return by_strategy


def mean_seconds(records: list[RunRecord]) -> float:
    """Mean time of runs, start and end included."""
    return statistics.mean(record.costs["run_seconds"] for record in records)


def training_of(records: list[RunRecord]) -> Training:
    """Return the share of training in runs, and the size of their checkpoints: weights, two moments and the best."""
    shares = [record.costs["train_seconds"] / record.costs["run_seconds"] for record in records]
    trainable = statistics.mean(record.parameters["trainable"] for record in records)
    return Training(statistics.mean(shares), 16.0 * trainable) if trainable and min(shares) > 0 else Training()


def parcels_of(study: Path, records: Mapping[str, list[RunRecord]]) -> dict[str, bytes]:
    """Pack one run of each strategy as machines do, without its model (keep: none)."""
    parcels = {}
    for name, of_strategy in records.items():
        with tempfile.TemporaryDirectory() as copy:
            parcel, folder = pack(StudyStore(study).runs.path(of_strategy[0].run_id)), Path(copy)
            unpack(parcel, folder)
            for path in sorted(folder.glob("model/**/*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            parcels[name] = pack(folder)
    return parcels


def simulate(
    records: Mapping[str, list[RunRecord]],
    parcels: Mapping[str, bytes],
    num_machines: int,
    num_runs: int,
    costs: Costs,
    faults: str,
    scale: float,
) -> dict[str, Any]:
    """Run one simulated study. scale: of the seconds of runs."""
    rng = np.random.default_rng(num_machines)
    expected, jobs = {name: scale * mean_seconds(of) for name, of in records.items()}, list[Job]()
    counts = [len(part) for part in np.array_split(np.arange(num_runs), len(records))]
    for name, count in zip(sorted(records, key=lambda name: -expected[name]), counts, strict=True):  # longest first
        spec = RunSpec.model_validate(records[name][0].spec)
        jobs += [Job(run=spec.model_copy(update={"seed": seed})) for seed in range(count)]
    seconds = {job.job_id: expected[job.run.strategy.name] * rng.lognormal(0, 0.1) for job in jobs}
    estimates = [Estimate(job, None, 1e10 * expected[job.run.strategy.name], 0, 0) for job in jobs]
    done: list[str] = []
    failed = 0
    screen = StudyProgress(Console(file=io.StringIO(), width=120), "simulated", has_opening=False)
    slots = Slots(num_machines, 1, machines=num_machines)
    study = study_from({"data": {"source": "packaged:rotten-tomatoes"}, "strategies": ["lora"]})
    screen.on_plan(Plan(study, None, (), "", estimates, slots, 1e10))  # type: ignore[arg-type]

    def on_event(event: Event) -> None:
        nonlocal failed
        screen.on_event(event)
        if event.kind == "done":
            done.append(event.job.job_id)
            failed += getattr(event.record, "status", OK) != OK

    with tempfile.TemporaryDirectory() as folder:
        store = StudyStore(Path(folder))
        trainings = {name: training_of(of) for name, of in records.items()}
        machines = ClockMachines(store, seconds, parcels, num_machines, costs, FAULTS[faults], rng, trainings)
        loop = Dispatch(jobs, machines, store, num_machines, on_event)
        machines.start()
        loop.run()
    assert sorted(done) == sorted(seconds), "a run was lost or counted twice"
    tally = machines.tally
    recovery = tally.recovery_seconds or [0.0]
    return {
        "machines": num_machines,
        "faults": faults,
        "run_seconds": statistics.mean(seconds.values()),
        "seconds": machines.now,
        "efficiency": sum(seconds.values()) / (num_machines * machines.now),
        "head_busy": tally.busy_seconds / machines.now,
        "head_seconds_per_run": tally.busy_seconds / num_runs,
        "loops": tally.num_loops,
        "reports": tally.num_reports,
        "deaths": tally.num_deaths,
        "recovery_median": statistics.median(recovery),
        "recovery_max": max(recovery),
        "killed": tally.num_killed,
        "resumed": tally.num_resumed,
        "copies": tally.num_copies,
        "stored": len(done),
        "failed": failed,
        "bytes_per_second": tally.bytes_received / machines.now,
    }


def measure_model(size: int) -> dict[str, float]:
    """Time the packing and the storing of a run with a model."""
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as into:
        (Path(made) / "model").mkdir()
        (Path(made) / "model" / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(size))
        started = time.perf_counter()
        parcel = pack(Path(made))
        packed = time.perf_counter()
        StudyStore(Path(into)).runs.adopt("full", lambda folder: unpack(parcel, folder))
        return {"pack": packed - started, "unpack": time.perf_counter() - packed, "bytes": float(len(parcel))}


# ---- real


class OneThread(LocalExecutor):
    """The local executor with a number of jobs at once, each on one thread."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._workers = workers

    def slots(self, num_jobs: int, largest_model: int, requested: int | None = None) -> Slots:
        """Return the slots."""
        return Slots(self._workers, 1, self._workers)


def measure_real(nodes: list[int], num_seeds: int) -> dict[str, Any]:
    """Time a study on this machine alone and on Ray nodes of one core; and the recovery from the death of a node."""
    from ray.cluster_utils import Cluster

    from tuneoff.execute.cluster import RayExecutor

    rows: list[dict[str, Any]] = []
    print(
        f"{'where':<12}{'start':>8}{'32 runs' if num_seeds == 8 else 'runs':>10}{'a run alone':>13}{'around it':>11}"
        f"{'runs a minute':>15}"
    )

    def show(where: str, workers: int, start: float, events: list[tuple[float, Event]]) -> None:
        rows.append(row := figures_of(where, workers, start, events))
        print(
            f"{where:<12}{row['start_seconds']:>6.1f} s{row['seconds']:>8.1f} s{row['run_seconds']:>11.2f} s"
            f"{row['around_seconds']:>9.2f} s{row['runs_a_minute']:>15.1f}",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        with OneThread(1) as executor:  # data and tokens are in the cache for all that follow
            timed(executor, Path(folder) / "first", 1)
        for workers in sorted({1, min(2, max(nodes))}):
            started = time.perf_counter()
            with OneThread(workers) as executor:
                show(
                    f"local, {workers}", workers, started, timed(executor, Path(folder) / f"local{workers}", num_seeds)
                )
        for count in nodes:
            cluster = start_nodes(Cluster(), count, Path(folder) / f"caches{count}")
            try:
                started = time.perf_counter()
                with RayExecutor(cluster.address) as executor:
                    show(
                        f"Ray, {count}", count, started, timed(executor, Path(folder) / f"ray{count}", num_seeds, count)
                    )
            finally:
                cluster.shutdown()
        local = next(row for row in rows if row["where"] == "local, 1")
        for row in rows:
            if row["where"] == "Ray, 1":
                row["overhead_seconds"] = row["slot_seconds"] - local["slot_seconds"]
                print(f"overhead of a run on Ray: {row['overhead_seconds']:.2f} s (target 0.5)")
        recovery = measure_recovery(Cluster(), Path(folder)) if max(nodes) > 1 else None
    if recovery is not None:
        print(f"a node is killed: {recovery:.1f} s until its run starts on the other")
    return {"studies": rows, "recovery_seconds": recovery, **REAL}


def start_nodes(cluster: Any, count: int, caches: Path) -> Any:
    """Add nodes of one core. The first is this machine as it is, each other one has an empty cache."""
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    for number in range(count):
        own = {"env_vars": {"TUNEOFF_CACHE": str(caches / str(number))}} if number else {}
        cluster.add_node(num_cpus=1, memory=4 * 2**30, object_store_memory=2 * 10**8, include_dashboard=False, **own)
    return cluster


def timed(executor: Any, folder: Path, num_seeds: int, workers: int | None = None) -> list[tuple[float, Event]]:
    """Run the study. Returns its events with their times."""
    given = {
        "name": folder.name,
        "data": {"source": "packaged:rotten-tomatoes", "limits": REAL["limits"]},
        "strategies": REAL["strategies"],
        "baselines": False,
        "seeds": list(range(num_seeds)),
        "recipe": {"epochs": REAL["epochs"]},
        "keep": "none",
        "workers": workers,
    }
    events: list[tuple[float, Event]] = []
    comparison = Study(study_from(given), folder).run(
        lambda event: events.append((time.perf_counter(), event)), executor=executor
    )
    assert not comparison.failures, comparison.failures
    return events


def figures_of(where: str, workers: int, start: float, events: list[tuple[float, Event]]) -> dict[str, Any]:
    """Time from the first start to the last end, and what it has around the runs themselves."""
    first, last = events[0][0], max(when for when, event in events if event.kind == "done")
    records = [event.record for _, event in events if event.kind == "done"]
    runs = [record.costs["run_seconds"] for record in records]  # type: ignore[union-attr]
    slot_seconds = (last - first) * workers / len(runs)
    return {
        "where": where,
        "start_seconds": first - start,
        "seconds": last - first,
        "runs": len(runs),
        "run_seconds": statistics.mean(runs),
        "slot_seconds": slot_seconds,  # that a run holds its slot for
        "around_seconds": slot_seconds - statistics.mean(runs),
        "runs_a_minute": 60 * len(runs) / (last - first),
    }


def measure_recovery(cluster: Any, folder: Path) -> float:
    """Kill one of two nodes while it runs, and time until its run starts on the other one."""
    from tuneoff.execute.cluster import RayExecutor

    start_nodes(cluster, 2, folder / "caches of recovery")
    second = next(node for node in cluster.list_all_nodes() if not node.head)
    killed: list[tuple[float, str]] = []
    restarted: list[float] = []
    machines: dict[str, str] = {}

    def watch(event: Event) -> None:
        job_id = event.job.job_id
        if event.kind == "started":
            machines[job_id] = event.machine
            if killed and job_id == killed[0][1]:
                restarted.append(time.perf_counter())
        if event.kind == "progress" and not killed and event.machine.endswith("(2)"):
            killed.append((time.perf_counter(), job_id))
            cluster.remove_node(second, allow_graceful=False)

    given = {
        "name": "recovery",
        "data": {"source": "packaged:rotten-tomatoes", "limits": REAL["limits"]},
        "strategies": ["full"],
        "baselines": False,
        "seeds": [0, 1],
        "recipe": {"epochs": 3 * REAL["epochs"]},
        "keep": "none",
    }
    try:
        with RayExecutor(cluster.address) as executor:
            Study(study_from(given), folder / "recovery").run(watch, executor=executor)
    finally:
        cluster.shutdown()
    return restarted[0] - killed[0][0] if restarted else float("nan")


if __name__ == "__main__":
    main()

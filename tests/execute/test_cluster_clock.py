"""The simulated cluster of benchmarks/cluster.py: the real loop on a clock of its own loses nothing and counts right."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.plans import jobs_of, spec_of
from tuneoff.execute.dispatch import Dispatch
from tuneoff.execute.executor import Event
from tuneoff.execute.parcels import pack
from tuneoff.execute.run import failed_record
from tuneoff.runs import StudyStore


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import cluster_clock

    yield cluster_clock
    del sys.modules["cluster_clock"]


@pytest.fixture
def simulate(clock, toy_csv, tmp_path):
    """Run 60 jobs of 100 s on six machines. Returns the machines, and the seeds of jobs in the order of their ends."""
    jobs = jobs_of(spec_of(toy_csv), searches=0, runs=60)
    stored = StudyStore(tmp_path / "stored")
    stored.runs.write(failed_record(jobs[0].run, "stands for a record"))
    parcel = pack(stored.runs.path(jobs[0].job_id))

    def run(checkpoint_bytes=0.0, **faults):
        machines = clock.ClockMachines(
            StudyStore(tmp_path / "study"),
            {job.job_id: 100.0 for job in jobs},
            {"lora": parcel},
            6,
            clock.Costs(start=0.0),
            clock.Faults(**faults),
            np.random.default_rng(0),
            {"lora": clock.Training(share=0.8, checkpoint_bytes=checkpoint_bytes)},
        )
        ended: list[int] = []

        def note(event: Event) -> None:
            if event.kind == "done":
                ended.append(event.job.run.seed)

        loop = Dispatch(jobs, machines, StudyStore(tmp_path / "study"), 6, note)
        machines.start()
        loop.run()
        return machines, ended

    return run


def test_machines_that_never_fail_are_busy_all_the_time(simulate):
    machines, ended = simulate()
    assert sorted(ended) == list(range(60))
    assert 1000 <= machines.now < 1020
    assert machines.tally.num_deaths == machines.tally.num_killed == 0


def test_jobs_of_dead_machines_start_elsewhere_and_each_ends_once(simulate):
    machines, ended = simulate(dying_machines=0.5, killed_runs=0.1, notice_seconds=30.0)
    assert sorted(ended) == list(range(60))
    assert machines.tally.num_deaths == 3
    assert machines.tally.num_killed > 0
    assert len(machines.tally.recovery_seconds) == 3
    assert min(machines.tally.recovery_seconds) >= 30
    assert machines.now > 1300


def test_jobs_go_on_from_checkpoints_unless_their_keeper_is_dead_too(simulate):
    faults = {"dying_machines": 0.5, "killed_runs": 0.3, "notice_seconds": 30.0}
    alone, _ = simulate(**faults)
    machines, ended = simulate(**faults, checkpoint_bytes=1e7)
    assert sorted(ended) == list(range(60))
    assert alone.tally.num_resumed == 0
    assert machines.tally.num_resumed >= 3
    assert machines.now < alone.now - 100


def test_a_slow_machine_gets_fewer_jobs(simulate):
    machines, _ = simulate(slow_machines=1 / 6, slowness=2.0)
    assert 1080 <= machines.now < 1220


def test_a_run_that_would_end_last_is_copied_before_others_start(simulate):
    # the slow machine starts its second job at 800 s of 1,200, and would end it at 1,600
    machines, ended = simulate(slow_machines=1 / 6, slowness=8.0)
    assert machines.tally.num_copies in (1, 2)  # the slow machine gets a third job
    assert set(range(47)) <= set(ended[:54])  # those that had started by then
    assert machines.now < 1320

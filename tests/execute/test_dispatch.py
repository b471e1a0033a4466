"""The loop that gives jobs to machines: what runs next, and what follows a job that is lost. Machines are in memory."""

from collections import deque

import pytest

from tests.cli.plans import jobs_of, spec_of
from tuneoff.errors import StopRequested, StoreError
from tuneoff.execute.dispatch import LOST, ConnectionLost, Dispatch
from tuneoff.execute.executor import Event
from tuneoff.execute.local import KILLED
from tuneoff.execute.run import failed_record
from tuneoff.runs import FAILED, StudyStore

pytestmark = pytest.mark.usefixtures("toy_csv")


class Script:
    """Machines that follow a script. outcomes: of each try of a job, by its seed; a job without any ends well."""

    def __init__(self, store, outcomes=None, lost_at=()):
        self.store, self.outcomes, self.lost_at = store, outcomes or {}, set(lost_at)
        self.tries: list[tuple[int, int]] = []  # seed and halvings of each
        self.running: deque = deque()
        self.waits, self.most, self.reconnects = 0, 0, 0
        self.cancelled: list = []
        self.shares: dict[int, float] = {}  # of runs that are kept, by seed
        self.forgotten: list[int] = []

    def kept(self, job):
        return self.shares.get(job.run.seed, 0.0)

    def forget(self, job):
        self.forgotten.append(job.run.seed)

    def submit(self, job, halvings):
        self.tries.append((job.run.seed, halvings))
        self.running.append(len(self.tries))
        self.most = max(self.most, len(self.running))
        return len(self.tries)

    def clock(self):
        return float(self.waits)

    def submit_copy(self, job, halvings):
        return None

    def drop(self, job, handles):
        raise AssertionError

    def wait(self, handles):
        self.waits += 1
        if self.waits in self.lost_at:
            raise ConnectionLost("the head does not answer")
        return [self.running.popleft()]

    def reports(self):
        return []

    def collect(self, job, handle):
        outcomes = self.outcomes.get(job.run.seed, [])
        if outcomes:
            return outcomes.pop(0)
        self.store.runs.write(failed_record(job.run, "stands for a record"))
        return "", 0

    def cancel(self, handles):
        self.cancelled = list(handles)

    def reconnect(self):
        self.running.clear()
        self.reconnects += 1


@pytest.fixture
def jobs(toy_csv):
    return jobs_of(spec_of(toy_csv), searches=0, runs=4)


def dispatch(jobs, machines, workers=2):
    events: list[Event] = []
    Dispatch(jobs, machines, machines.store, workers, events.append).run()
    return events


def kinds_of(events, seed):
    return [event.kind for event in events if event.job.run.seed == seed]


def test_jobs_are_sent_in_order_and_no_more_at_once_than_asked(jobs, tmp_path):
    machines = Script(StudyStore(tmp_path))
    events = dispatch(jobs, machines)
    assert machines.tries == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert machines.most == 2
    assert [kinds_of(events, seed) for seed in range(4)] == [["started", "done"]] * 4
    assert machines.forgotten == [0, 1, 2, 3]


def test_a_lost_job_runs_again_before_those_that_wait(jobs, tmp_path):
    machines = Script(StudyStore(tmp_path), {0: [("its machine died", LOST)]})
    events = dispatch(jobs, machines)
    assert [seed for seed, _ in machines.tries] == [0, 1, 0, 2, 3]
    assert kinds_of(events, 0) == ["started", "stopped", "started", "done"]
    assert next(event.note for event in events if event.kind == "stopped") == "its machine died; it runs again"


def test_a_killed_job_is_tried_in_smaller_micro_batches_and_failed_the_third_time(jobs, tmp_path):
    machines = Script(StudyStore(tmp_path), {1: [("killed", KILLED)] * 3})
    events = dispatch(jobs, machines)
    assert [halvings for seed, halvings in machines.tries if seed == 1] == [0, 1, 1]
    (done,) = [event for event in events if event.kind == "done" and event.job.run.seed == 1]
    assert (done.record.status, done.record.error) == (FAILED, "killed")
    assert len([event for event in events if event.kind == "done"]) == 4
    assert sorted(machines.forgotten) == [0, 1, 2, 3]  # also of the one that failed


def test_a_lost_connection_sends_what_ran_again_and_is_no_crash(jobs, tmp_path):
    machines = Script(StudyStore(tmp_path), lost_at=[2, 3, 4, 5])
    events = dispatch(jobs, machines)
    assert [seed for seed, _ in machines.tries] == [0, 1, 2, *[1, 2] * 4, 3]
    assert machines.reconnects == 4
    assert [event.job.run.seed for event in events if event.kind == "done"] == [0, 1, 2, 3]
    assert {event.record.error for event in events if event.record} == {"stands for a record"}


class Timed(Script):
    """Machines on which a job takes a time, by its seed; a copy takes another one, and may crash."""

    def __init__(self, store, seconds, outcomes=None, copies=10.0, copy_crashes=False, **options):
        super().__init__(store, outcomes, **options)
        self.seconds, self.copies, self.copy_crashes = seconds, copies, copy_crashes
        self.now, self.at_work, self.started, self.dropped = 0.0, {}, [], []
        self.copied: list[int] = []

    def clock(self):
        return self.now

    def submit(self, job, halvings):
        self.tries.append((job.run.seed, halvings))
        return self._start(job, self.seconds[job.run.seed])

    def submit_copy(self, job, halvings):
        self.copied.append(job.run.seed)
        return self._start(job, self.copies, is_copy=True)

    def _start(self, job, seconds, is_copy=False):
        handle = len(self.tries) + 100 * len(self.copied)
        self.at_work[handle] = (job, self.now, seconds, is_copy)
        self.started.append((job.job_id, "copy" if is_copy else "first"))
        return handle

    def wait(self, handles):
        self.waits += 1
        if self.waits in self.lost_at:
            self.at_work.clear()
            raise ConnectionLost("the head does not answer")
        self.now += 1.0
        assert set(handles) == set(self.at_work)
        return [handle for handle, (_, begun, seconds, _) in self.at_work.items() if self.now - begun >= seconds]

    def reports(self):
        starts, self.started = self.started, []
        progress = [
            {"kind": "progress", "job_id": job.job_id, "share": min(1.0, (self.now - begun) / seconds)}
            for job, begun, seconds, is_copy in self.at_work.values()
            if not is_copy
        ]
        return [{"kind": "started", "job_id": job_id, "machine": name} for job_id, name in starts] + progress

    def collect(self, job, handle):
        is_copy = self.at_work.pop(handle)[3]
        return ("it crashed", 1) if is_copy and self.copy_crashes else super().collect(job, handle)

    def drop(self, job, handles):
        for handle in handles:
            self.dropped.append((job.run.seed, self.at_work.pop(handle)[3]))

    def reconnect(self):
        self.reconnects += 1


SLOW = {0: 20.0, 1: 20.0, 2: 20.0, 3: 200.0}


def test_a_slow_run_runs_elsewhere_too_and_ends_once(jobs, tmp_path):
    machines = Timed(StudyStore(tmp_path), SLOW, copies=20.0)
    events = dispatch(jobs, machines)
    assert machines.copied == [3]
    assert machines.dropped == [(3, False)]
    assert machines.now < 100  # 20 + 200 without a copy
    (done,) = [event for event in events if event.kind == "done" and event.job.run.seed == 3]
    assert done.machine == "copy"
    assert [kinds_of(events, seed).count("started") for seed in range(4)] == [1] * 4
    shares = [event.share for event in events if event.kind == "progress" and event.job.run.seed == 3]
    assert shares == sorted(shares)


def test_a_copy_that_is_slower_still_is_dropped(jobs, tmp_path):
    machines = Timed(StudyStore(tmp_path), {**SLOW, 3: 60.0}, copies=300.0)
    events = dispatch(jobs, machines)
    assert machines.dropped == [(3, True)]
    assert {event.machine for event in events if event.kind == "done"} == {"first"}


def test_a_copy_that_crashes_harms_nothing(jobs, tmp_path):
    machines = Timed(StudyStore(tmp_path), SLOW, copy_crashes=True)
    events = dispatch(jobs, machines)
    assert machines.copied == [3]
    assert [seed for seed, _ in machines.tries] == [0, 1, 2, 3]
    assert kinds_of(events, 3)[-1] == "done"
    assert kinds_of(events, 3).count("done") == 1
    assert "stopped" not in kinds_of(events, 3)


def test_a_run_that_crashes_while_its_copy_runs_is_not_tried_again(jobs, tmp_path):
    machines = Timed(StudyStore(tmp_path), SLOW | {3: 60.0}, {3: [("its machine died", LOST)]}, copies=70.0)
    events = dispatch(jobs, machines)
    assert machines.copied == [3]
    assert [seed for seed, _ in machines.tries] == [0, 1, 2, 3]
    assert machines.dropped == []
    (done,) = [event for event in events if event.kind == "done" and event.job.run.seed == 3]
    assert (done.machine, done.record.error) == ("copy", "stands for a record")


def test_a_run_that_would_end_last_is_copied_before_others_start(jobs, tmp_path):
    machines = Timed(StudyStore(tmp_path), dict.fromkeys(range(4), 50.0) | {0: 400.0})
    dispatch(jobs, machines)
    assert machines.copied == [0]
    assert [seed for seed, _ in machines.tries] == [0, 1, 2, 3]
    assert machines.now < 130  # the first ends, the copy takes 10, and two are left
    others = Timed(StudyStore(tmp_path / "others"), dict.fromkeys(range(4), 50.0) | {0: 105.0})
    dispatch(jobs, others)
    assert others.copied == []  # slow, and not the last to end


def test_no_run_is_slow_before_a_usual_one_is_known(jobs, tmp_path):
    alone = Timed(StudyStore(tmp_path / "alone"), {0: 400.0})
    dispatch(jobs[:1], alone)
    assert alone.copied == []


def test_a_run_that_goes_on_from_a_checkpoint_tells_no_usual_length(jobs, tmp_path):
    machines = Timed(StudyStore(tmp_path), dict.fromkeys(range(4), 5.0) | {3: 100.0})
    machines.shares = {0: 0.9, 1: 0.9, 2: 0.9}
    dispatch(jobs, machines)
    assert machines.copied == []


def test_a_run_is_copied_if_it_would_end_sooner_from_its_checkpoint(jobs, tmp_path):
    machines = Timed(StudyStore(tmp_path), {0: 100.0, 1: 100.0, 2: 100.0, 3: 190.0})
    dispatch(jobs, machines)
    assert machines.copied == []  # at most 90 s longer than a run of 100

    class Keeping(Timed):
        def reports(self):
            if self.now > 200:  # the last one has done half
                self.shares[3] = 0.5
            return super().reports()

    kept = Keeping(StudyStore(tmp_path / "kept"), {0: 100.0, 1: 100.0, 2: 100.0, 3: 190.0})
    dispatch(jobs, kept)
    assert kept.copied == [3]


def test_a_lost_connection_takes_a_copy_along(jobs, tmp_path):
    machines = Timed(StudyStore(tmp_path), SLOW, copies=150.0, lost_at=[100])
    events = dispatch(jobs, machines)
    assert machines.copied[:1] == [3]
    assert [seed for seed, _ in machines.tries] == [0, 1, 2, 3, 3]
    assert kinds_of(events, 3).count("stopped") == 1
    assert kinds_of(events, 3).count("done") == 1


@pytest.mark.parametrize("error", [StopRequested(2), StoreError("has not come back")])
def test_what_runs_is_cancelled_at_a_stop_and_where_no_head_comes_back(jobs, tmp_path, error):
    class Ending(Script):
        def wait(self, handles):
            raise error

    machines = Ending(StudyStore(tmp_path))
    with pytest.raises(type(error)):
        dispatch(jobs, machines)
    assert machines.cancelled == [1, 2]

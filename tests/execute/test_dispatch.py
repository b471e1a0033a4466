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

    def submit(self, job, halvings):
        self.tries.append((job.run.seed, halvings))
        self.running.append(len(self.tries))
        self.most = max(self.most, len(self.running))
        return len(self.tries)

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


def test_a_lost_connection_sends_what_ran_again_and_is_no_crash(jobs, tmp_path):
    machines = Script(StudyStore(tmp_path), lost_at=[2, 3, 4, 5])
    events = dispatch(jobs, machines)
    assert [seed for seed, _ in machines.tries] == [0, 1, 2, *[1, 2] * 4, 3]
    assert machines.reconnects == 4
    assert [event.job.run.seed for event in events if event.kind == "done"] == [0, 1, 2, 3]
    assert {event.record.error for event in events if event.record} == {"stands for a record"}


@pytest.mark.parametrize("error", [StopRequested(2), StoreError("has not come back")])
def test_what_runs_is_cancelled_at_a_stop_and_where_no_head_comes_back(jobs, tmp_path, error):
    class Ending(Script):
        def wait(self, handles):
            raise error

    machines = Ending(StudyStore(tmp_path))
    with pytest.raises(type(error)):
        dispatch(jobs, machines)
    assert machines.cancelled == [1, 2]

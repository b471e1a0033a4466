"""Checkpoints that the machines of a Ray cluster keep for each other."""

import re
import shutil
import time

import filelock
import pytest

from tests.studies import changed
from tests.waiting import WAITING
from tuneoff.execute.executor import Event
from tuneoff.runs import OK, StudyStore

ray = pytest.importorskip("ray")

from tests.execute.test_cluster import kill_jobs  # noqa: E402
from tests.execute.test_cluster_machines import name_of_second  # noqa: E402
from tuneoff.execute.cluster import RayExecutor  # noqa: E402
from tuneoff.execute.keeping import Keeper  # noqa: E402
from tuneoff.execute.node import Watcher, _remove_left_folders  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files open

LONG = {"epochs": 60, "max_length": 16}  # with a metric that waits


def kept(keeper, name):
    whole = b""
    while part := keeper.part(name, len(whole))[1]:
        whole += part
    return whole


def test_the_last_whole_checkpoint_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("tuneoff.execute.keeping._PART_BYTES", 4)
    keeper = Keeper(tmp_path / "kept")
    assert kept(keeper, "full-s0") == b""
    keeper.add("full-s0", 0, b"first", 8)
    assert kept(keeper, "full-s0") == b""
    keeper.add("full-s0", 5, b"one", 8)
    assert kept(keeper, "full-s0") == b"firstone"
    keeper.add("full-s0", 0, b"secon", 9)  # its machine dies: the first one stays
    assert kept(keeper, "full-s0") == b"firstone"
    keeper.add("full-s0", 0, b"third", 5)  # and what came of the second does not stand in the way
    assert kept(keeper, "full-s0") == b"third"
    keeper.add("full-s0", 0, b"four", 8)
    with pytest.raises(ValueError, match="a part at 6 follows 4 bytes"):
        keeper.add("full-s0", 6, b"th", 8)
    with pytest.raises(ValueError, match="a part at 4 follows 0 bytes"):  # the rest of what was removed
        keeper.add("full-s0", 4, b"four", 8)
    assert kept(keeper, "full-s0") == b"third"
    keeper.forget("full-s0")
    keeper.forget("full-s0")
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_checkpoint_that_is_replaced_has_another_number(tmp_path):
    keeper = Keeper(tmp_path / "kept")
    keeper.add("full-s0", 0, b"first", 5)
    before, _ = keeper.part("full-s0", 0)
    assert keeper.part("full-s0", 3)[0] == before
    time.sleep(0.02)  # the clock of a file system is coarse
    keeper.add("full-s0", 0, b"second", 6)
    assert keeper.part("full-s0", 3)[0] != before


def test_a_checkpoint_leaves_room_on_the_disk_of_its_keeper(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path / "kept")
    keeper.add("full-s0", 0, b"first", 5)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OSError, match="No space left"):
        keeper.add("full-s0", 0, b"second", free)
    assert kept(keeper, "full-s0") == b"first"
    assert [path.name for path in keeper.folder.iterdir()] == ["full-s0"]


def test_folders_of_killed_agents_are_removed_and_those_of_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders = {name: tmp_path / f"tuneoff-node-{name}" for name in ("killed", "running", "foreign")}
    for name, folder in folders.items():
        folder.mkdir()
        if name != "foreign":  # of a version that claims none
            (folder / ".claim").touch()
    with filelock.FileLock(folders["running"] / ".claim"):
        _remove_left_folders()
    assert {name for name, folder in folders.items() if folder.exists()} == {"running", "foreign"}


def test_plans_know_what_a_machine_has_trained_until_the_study_starts_again(tmp_path):
    runs = StudyStore(tmp_path).runs
    assert not runs.is_trained("full-s0")
    runs.note_trained_elsewhere("full-s0")
    assert runs.is_trained("full-s0")
    assert not runs.is_trained("full-s1")
    runs.remove_unfinished()  # its machine has forgotten it
    assert not runs.is_trained("full-s0")


def test_each_machine_has_another_one_that_keeps_its_checkpoints():
    watcher = Watcher()
    assert watcher.next_machine("a") == "a"  # alone
    watcher.use_machines(["c", "a", "b"])
    assert [watcher.next_machine(node) for node in "abc"] == ["b", "c", "a"]
    assert watcher.next_machine("bb") == "c"  # one that has just joined
    watcher.use_machines(["a", "c"])
    assert watcher.next_machine("a") == "c"


def same_as_here(study, there, folder):
    """Compare a study of the cluster with the same one on this machine, by the bytes of all predictions."""
    here = type(study)(study.spec, folder).run(executor=None)
    assert [record.status for record in there.records] == [OK] * len(here.records)
    for record in here.records:
        files = [StudyStore(path).runs.path(record.run_id) / "predictions.parquet" for path in (study.folder, folder)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["machine", "process"])
def test_a_run_that_is_lost_goes_on_from_its_checkpoint(what, cluster, small, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEOFF_CHECKPOINT_SECONDS", "0.2")
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=[0, 1], recipe=LONG, metric=WAITING)
    second = next(node for node in cluster.list_all_nodes() if not node.head)
    events: list[Event] = []
    lost: list[tuple[str, float]] = []  # runs, and the share of them that was kept

    def lose(event: Event) -> None:
        events.append(event)
        share = executor.share_kept(event.job.job_id)
        if event.kind == "progress" and event.machine == name and share > 0.05 and not lost:
            lost.append((event.job.job_id, share))
            if what == "machine":
                cluster.remove_node(second, allow_graceful=False)
            else:
                kill_jobs(tmp_path / "cache 1")

    with RayExecutor(cluster.address) as executor:
        name = name_of_second(cluster, executor)
        comparison = study.run(lose, executor=executor)
    ((run_id, share),) = lost
    stopped = next(number for number, event in enumerate(events) if event.kind == "stopped")
    later = [event for event in events[stopped:] if event.job.job_id == run_id and event.kind == "progress"]
    assert events[stopped].job.job_id == run_id
    assert later[0].share > share / 2  # the share is what was done when the file was seen
    assert executor.share_kept(run_id) == 0.0
    if what == "machine":
        same_as_here(study, comparison, tmp_path / "here")
    else:  # it goes on in smaller micro-batches, which have other bits
        assert [record.status for record in comparison.records] == [OK, OK]


@pytest.mark.slow
def test_a_machine_that_cannot_keep_checkpoints_is_named_once(cluster, small, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEOFF_CHECKPOINT_SECONDS", "0.2")
    told: list[str] = []
    monkeypatch.setattr("tuneoff.execute.cluster.notice", told.append)
    recipe = {**LONG, "epochs": 20}
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=[0, 1], recipe=recipe, metric=WAITING)
    with RayExecutor(cluster.address) as executor:
        executor.machines.meet()
        folders = list(tmp_path.glob("temp */tuneoff-node-*"))
        assert len(folders) == 2
        for folder in folders:
            (folder / "kept").write_text("where the folder would be")
        comparison = study.run(executor=executor)
    assert [record.status for record in comparison.records] == [OK] * 2
    assert len(told) == len(set(told)) == 2  # one for each machine
    assert all(re.search(r"cannot keep checkpoints of another machine's runs \(.*File exists", line) for line in told)


@pytest.mark.slow
def test_the_run_of_the_best_trial_is_not_trained_again_on_a_cluster(cluster, small, tmp_path):
    recipe = {**LONG, "epochs": 20}
    study = changed(small, strategies=["full"], seeds=[0, 1], search=2, recipe=recipe, metric=WAITING)
    events: list[Event] = []
    with RayExecutor(cluster.address) as executor:
        comparison = study.run(events.append, executor=executor)
    runs = [event for event in events if event.kind == "progress" and not event.job.is_search]
    assert {event.job.run.seed for event in runs} == {1}  # the other has no step left
    same_as_here(study, comparison, tmp_path / "here")

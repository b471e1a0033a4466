"""The copy of a study at an address: runs arrive as they end, come back where they are missing, and damage does not."""

import contextlib
import json
import shutil

import fsspec
import pytest

from tests.studies import changed
from tuneoff.damage import verify
from tuneoff.errors import LibraryError, StoreError
from tuneoff.execute.executor import Event
from tuneoff.mirror import Mirror
from tuneoff.runs import OK
from tuneoff.study import Study

pytestmark = pytest.mark.slow
ADDRESS = "memory://bucket/small"


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    with contextlib.suppress(FileNotFoundError):
        files.rm("/bucket", recursive=True)


def run(study, folder, address=ADDRESS):
    """Run a study in a folder with a copy. Returns the comparison and the ids of jobs that ran."""
    ran: list[str] = []

    def note(event: Event) -> None:
        if event.kind == "done":
            ran.append(event.job.job_id)

    with Mirror(address, folder) as mirror:
        comparison = Study(study.spec, folder).run(mirror.watched(note))
    return comparison, ran


def files_of(folder):
    left_out = {".lock", "workers.log"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in left_out
    }


def test_the_copy_is_the_folder_and_gives_another_machine_its_runs(small, memory, tmp_path):
    study = changed(small, strategies=["tfidf", "head"], search=2)
    first, ran = run(study, study.folder)
    assert len(ran) == 4
    copied = {name.removeprefix("/bucket/small/"): memory.cat_file(name) for name in memory.find("/bucket/small")}
    assert copied == files_of(study.folder)
    elsewhere = tmp_path / "elsewhere"
    again, ran = run(study, elsewhere)
    assert ran == []
    assert {r.run_id: r.metrics for r in again.records} == {r.run_id: r.metrics for r in first.records}
    assert list(verify(elsewhere).damage) == []


def test_runs_that_are_missing_come_back_and_damaged_or_unfinished_ones_run_again(small, memory, capfd):
    comparison, _ = run(small, small.folder)
    head, tfidf = sorted(record.run_id for record in comparison.records)
    memory.pipe_file(f"/bucket/small/runs/{head}/run.json", b"{}")
    memory.rm_file(f"/bucket/small/runs/{tfidf}/checksums.json")
    shutil.rmtree(small.folder / "runs")
    comparison, ran = run(small, small.folder)
    assert sorted(ran) == [head, tfidf]
    assert f"run {head} at {ADDRESS} is damaged; it runs again" in capfd.readouterr().err
    assert json.loads(memory.cat_file(f"/bucket/small/runs/{head}/run.json"))["status"] == OK
    shutil.rmtree(small.folder / "runs" / head)
    assert run(small, small.folder)[1] == []
    assert f"1 run came from {ADDRESS}" in capfd.readouterr().err


def test_what_a_stopped_study_has_stored_is_in_the_copy(small, tmp_path):
    def stop(event: Event) -> None:
        if event.kind == "done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Mirror(f"file://{tmp_path}/copy", small.folder) as mirror:
        small.run(mirror.watched(stop))
    stored = {path.name for path in (small.folder / "runs").glob("[!.]*")}
    assert stored
    assert {path.name for path in (tmp_path / "copy" / "runs").iterdir()} == stored


def test_an_address_that_cannot_be_used_is_one_line(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be used \(.*\); check the address and your access to it"):
        Mirror(f"file://{tmp_path}/file/below", small.folder)
    with pytest.raises((StoreError, LibraryError), match="cannot be used"):
        Mirror("nosuch://bucket/study", small.folder)


def test_what_the_copy_has_is_not_sent_again(small, memory, tmp_path, monkeypatch):
    """From this machine, which has the runs, and from another one, to which they came from the copy."""
    run(small, small.folder)
    put, sent = memory.put_file, []

    def put_file(here, there):
        sent.append(there)
        put(here, there)

    monkeypatch.setattr(memory, "put_file", put_file)
    for folder in (small.folder, tmp_path / "another"):
        with Mirror(ADDRESS, folder):
            pass
    assert sent
    assert not [name for name in sent if "/runs/" in name]

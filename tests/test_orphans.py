"""Orphans: what a study's folder holds and its data.json does not list; only that is removed."""

import json
import os
import time

import filelock
import pytest

from tests.stored import stored_study as store_study
from tuneoff.orphans import remove_orphans, stored_studies, stored_study


@pytest.fixture
def folder(tmp_path):
    """A stored study of three runs, of which data.json lists two; with a search and temporary files."""
    folder = tmp_path / "results" / "made"
    store_study(folder, [("probe", "probe", 0.7), ("lora", "lora", 0.8)])
    listed = json.loads((folder / "data.json").read_text())
    (folder / "searches").mkdir()
    (folder / "searches" / "search-lora-00000000.json").write_text("{}")
    os.utime(folder / "searches" / "search-lora-00000000.json", (0, 0))
    (folder / "data.json").write_text(json.dumps({**listed, "runs": listed["runs"][:-1]}))
    return folder


def names(study):
    return sorted((orphan.kind, orphan.path.name) for orphan in study.orphans)


def test_runs_and_searches_that_are_not_listed_are_orphans(folder):
    study = stored_study(folder)
    assert names(study) == [("run", "lora-00000001-s1"), ("search", "search-lora-00000000.json")]
    assert study.num_runs == 2
    assert all(orphan.size_bytes > 0 for orphan in study.orphans)
    assert stored_studies(folder.parent) == [study]


def test_the_model_on_all_labelled_examples_is_none(folder):
    listed = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**listed, "final": ["lora-00000001-s1"]}))
    assert [kind for kind, _ in names(stored_study(folder))] == ["search"]


def test_a_search_of_a_study_that_was_stopped_before_its_runs_is_none(folder):
    later = time.time() + 10
    os.utime(folder / "searches" / "search-lora-00000000.json", (later, later))
    assert names(stored_study(folder)) == [("run", "lora-00000001-s1")]


def test_without_a_list_nothing_is_an_orphan(folder):
    (folder / "data.json").write_text("{")
    assert stored_study(folder).orphans == ()


def test_temporary_files_of_ended_processes_are_orphans(folder):
    (folder / "runs" / ".unfinished-lora-00000001-s1-2147483647").mkdir()
    (folder / ".unfinished-2147483647-data.json").write_text("{")
    (folder / "runs" / f".unfinished-lora-00000001-s0-{os.getpid()}").mkdir()
    unfinished = [name for kind, name in names(stored_study(folder)) if kind == "unfinished"]
    assert unfinished == [".unfinished-2147483647-data.json", ".unfinished-lora-00000001-s1-2147483647"]


def test_only_orphans_are_removed(folder):
    before = {path.name for path in (folder / "runs").iterdir()}
    assert remove_orphans(stored_study(folder))
    assert stored_study(folder).orphans == ()
    assert {path.name for path in (folder / "runs").iterdir()} == before - {"lora-00000001-s1"}
    assert not (folder / ".lock").exists()


def test_a_study_that_another_process_runs_is_left_alone(folder):
    study = stored_study(folder)
    with filelock.FileLock(folder / ".lock"):
        assert not remove_orphans(study)
    assert stored_study(folder) == study

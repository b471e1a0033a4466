"""The cache: damage is found at the first use in a study, a full disk leaves nothing, others may read and share it."""

import os
import shutil
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.storage import flip_a_bit, small_disk
from tests.studies import changed
from tuneoff import cache
from tuneoff.cache import cached_folder, in_use, leftovers, prune, share_checks, stored_folder
from tuneoff.cli.stored import prune_studies
from tuneoff.errors import StoreError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "cache"))
    cache._checks.clear()
    yield tmp_path / "cache"
    cache._checks.clear()


def build(into):
    (into / "data").write_bytes(bytes(range(256)) * 40)


def damage(folder, kind):
    file = folder / "data"
    if kind == "bit":
        flip_a_bit(file)
    elif kind == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif kind == "missing":
        file.unlink()
    else:
        (folder / "checksums.json").write_text("{")


@pytest.mark.parametrize("kind", ["bit", "truncated", "missing", "manifest"])
def test_a_damaged_folder_is_built_again_with_one_line(kind, root, capfd):
    with in_use():
        damage(cached_folder("made-1", build), kind)
    with in_use():
        folder = cached_folder("made-1", build)
        assert (folder / "data").read_bytes() == bytes(range(256)) * 40
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"tuneoff: {root / 'made-1'} is damaged (")
    assert line.endswith("; it is built again")
    assert leftovers() == []


def test_a_folder_without_checksums_is_built_again(root, capfd):
    """An earlier version built it."""
    folder = cached_folder("made-1", build)
    (folder / "checksums.json").unlink()
    (folder / "data").write_text("who knows")
    cache._checks.clear()
    assert (cached_folder("made-1", build) / "data").stat().st_size == 256 * 40
    assert capfd.readouterr().err == ""


def test_a_folder_is_checked_once_in_a_study_whatever_process_uses_it(root, monkeypatch):
    cached_folder("made-1", build)
    cache._checks.clear()
    read: list[str] = []

    def record(folder):
        read.append(folder.name)
        return {}

    monkeypatch.setattr(cache, "manifest_problems", record)
    with in_use():
        cached_folder("made-1", build)
        shared = cache.checks_folder()
        cache._checks.clear()  # as in the process of a job, which starts with none
        share_checks(shared)
        cached_folder("made-1", build)
        assert stored_folder("made-1") == root / "made-1"
    assert read == ["made-1"]
    with in_use():  # another study
        cached_folder("made-1", build)
    assert read == ["made-1"] * 2


def test_a_damaged_folder_that_a_job_only_reads_is_an_error(root):
    folder = cached_folder("dataset-1", build)
    cache._checks.clear()
    flip_a_bit(folder / "data")
    with pytest.raises(StoreError, match=r"dataset-1 cannot be used \(data has changed .*\); run the study again"):
        stored_folder("dataset-1")
    with pytest.raises(StoreError, match="it is missing"):
        stored_folder("dataset-2")


def test_folders_follow_the_umask(root):
    before = os.umask(0o002)
    try:
        with in_use():
            folder = cached_folder("made-1", build)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o775


def test_what_a_killed_process_left_is_removed_and_what_another_builds_is_not(root, monkeypatch, capsys):
    root.mkdir()
    script = "import sys, time; from tuneoff.cache import cached_folder; cached_folder(sys.argv[1], lambda into: ((into / 'half').touch(), time.sleep(60)))"
    builders = [subprocess.Popen([sys.executable, "-c", script, name]) for name in ("killed-1", "alive-1")]
    try:
        deadline = time.monotonic() + 60
        while len(list(root.glob(".unfinished-*/half"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        builders[0].kill()
        builders[0].wait()
        assert [path.name.partition("~")[0] for path in leftovers()] == [".unfinished-killed-1"]
        monkeypatch.chdir(root)  # without studies
        prune_studies([], is_confirmed=False, as_json=False)
        assert ".unfinished-killed-1" in capsys.readouterr().out.replace("\n", "")
        prune()
        assert [path.name.partition("~")[0] for path in root.glob(".unfinished-*")] == [".unfinished-alive-1"]
    finally:
        for builder in builders:
            builder.kill()
            builder.wait()


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", "1m") as disk:
        monkeypatch.setenv("TUNEOFF_CACHE", str(disk))
        with pytest.raises(StoreError, match=r"the disk is full \(.*disk, 0\.\d MB free\)"):
            cached_folder("made-1", lambda into: np.save(into / "a.npy", np.zeros(2**20)))
        assert [path.name for path in disk.iterdir() if not path.name.endswith(".lock")] == []


def test_states_on_a_full_disk_raise_and_do_not_kill_the_process(tmp_path, monkeypatch):
    import torch

    from tuneoff.engine.inputs import _create

    with small_disk(tmp_path / "disk", "1m") as disk:
        monkeypatch.setenv("TUNEOFF_CACHE", str(disk))
        with pytest.raises(StoreError, match="the disk is full"):
            cached_folder("prefix-1", lambda into: _create(into / "states.npy", (2**20, 2), torch.float32))
        assert leftovers() == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root")
def test_a_complete_cache_that_cannot_be_written_is_used(root):
    cached_folder("made-1", build)
    for folder in root.parents:
        if folder.stat().st_uid == os.geteuid() and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o055)
    script = (
        "from tuneoff.cache import *\n"
        "with in_use():\n"
        "    print((cached_folder('made-1', None) / 'data').stat().st_size)\n"
        "prune(0)\n"
    )
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c", script]
    used = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert (used.stdout, used.stderr) == ("10240\n", "")


def test_every_corruption_of_every_file_of_a_studys_cache_is_found(small, root, record_property):
    changed(small, strategies=["tfidf", "probe", "head", "partial:layers=1"]).run()
    files = [path for path in sorted(root.glob("[!.]*/**/*")) if path.is_file() and path.name != "checksums.json"]
    assert len({path.relative_to(root).parts[0].partition("-")[0] for path in files}) >= 3  # kinds of entries
    record_property("corruptions", 3 * len(files))
    missed = []
    for file in files:
        entry, content = file.relative_to(root).parts[0], file.read_bytes()
        for damaged in (None, content[:-1], bytes([content[0] ^ 4]) + content[1:]) if content else (None, b"x"):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            cache._checks.clear()
            try:
                stored_folder(entry)
                missed.append((file.name, damaged))
            except StoreError:
                file.write_bytes(content)
    assert missed == []

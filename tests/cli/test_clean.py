"""tuneoff clean: sizes first, then questions; only what is confirmed is removed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.stored import stored_study
from tuneoff.cache import in_use
from tuneoff.spare_models import SMALL_MODEL_BYTES

pty = pytest.importorskip("pty", reason="no terminals on this system")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a cache, and a study with large models, an orphan and a small model."""
    monkeypatch.chdir(tmp_path)
    for name in ("prefix-1", "tokens-1", "memory-1"):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "content").write_bytes(b"x" * 2000)
    (tmp_path / "cache" / "speeds.json").write_text("{}")
    labels = ["lora", "head", "full", "probe"]
    study = stored_study(tmp_path / "results" / "made", [(s, s, 0.95 - 0.1 * i) for i, s in enumerate(labels)], seeds=1)
    for run in (study.folder / "runs").iterdir():
        (run / "model").mkdir()
        with open(run / "model" / "weights", "wb") as file:
            file.truncate(1000 if run.name.startswith("probe") else SMALL_MODEL_BYTES + 1)
    study.report()  # before the cache is another one: it adds the script of the charts
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "cache"))
    listed = json.loads((study.folder / "data.json").read_text())
    listed["runs"].remove("full-00000002-s0")
    (study.folder / "data.json").write_text(json.dumps(listed))
    return tmp_path


def clean(*options):
    done = subprocess.run(
        [sys.executable, "-m", "tuneoff", "clean", *options], capture_output=True, text=True, check=True
    )
    return done.stdout


def contents(place):
    cache = sorted(path.name for path in (place / "cache").iterdir() if not path.name.startswith("."))
    return cache, sorted(path.parent.name for path in place.glob("results/made/runs/*/model"))


def in_a_terminal(answers):
    """Run clean in a terminal and type answers, one for each question. Returns the exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it
        os.execv(sys.executable, [sys.executable, "-m", "tuneoff", "clean"])
    printed = b""
    for number, answer in enumerate(answers, start=1):
        while printed.count(b"[y/N]") < number:
            printed += os.read(terminal, 1024)
        time.sleep(0.2)
        os.write(terminal, answer)
    try:
        while os.read(terminal, 1024):
            pass
    except OSError:
        pass
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_sizes_are_shown_and_nothing_is_removed_without_a_terminal(place):
    before, printed = contents(place), clean()
    assert "4.0 kB" in printed
    assert "1 output of frozen blocks (2.0 kB), 1 split as tokens (2.0 kB)" in printed
    assert "10.0 MB  results/made: 1 model of strategies that the verdict does not pick" in printed
    assert "results/made: 1 run (" in printed
    assert "Nothing was removed; add --yes to free 20.0 MB" in printed
    assert contents(place) == before
    assert [part["kind"] for part in json.loads(clean("--json"))] == ["cache", "models", "orphans"]


def test_what_is_not_needed_is_removed(place):
    assert "Freed 20.0 MB" in clean("--yes")
    assert contents(place) == (["memory-1", "speeds.json"], ["lora-00000000-s0", "probe-00000003-s0"])
    assert (place / "results/made/runs/head-00000001-s0/run.json").is_file()
    assert "Nothing to free" in clean()


def test_an_interrupt_at_a_question_frees_nothing(place):
    before = contents(place)
    assert in_a_terminal([b"y\n", b"\x03"]) == 130
    assert contents(place) == before


def test_only_confirmed_kinds_are_removed(place):
    assert in_a_terminal([b"n\n", b"y\n", b"n\n"]) == 0
    cache, models = contents(place)
    assert "prefix-1" in cache
    assert models == ["full-00000002-s0", "lora-00000000-s0", "probe-00000003-s0"]


def test_models_stay_where_the_study_keeps_all(place):
    path = place / "results/made/study.yaml"
    path.write_text(path.read_text().replace("keep: recommended", "keep: all"))
    assert [part["kind"] for part in json.loads(clean("--json"))] == ["cache", "orphans"]


def test_a_cache_in_use_is_kept(place):
    with in_use():
        assert "kept, because another process uses it" in clean("--yes")
    assert "prefix-1" in contents(place)[0]

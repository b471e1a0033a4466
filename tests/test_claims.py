"""Claims: one process at a time runs a study, and the message of the second names the first."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from tuneoff.claims import claimed
from tuneoff.errors import StoreError

HOLD = "import sys, time; from pathlib import Path; from tuneoff.claims import claimed\nwith claimed(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"  # fmt: skip


def test_the_second_process_is_told_which_one_runs_the_study(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"process {holder.pid} is running the study in .* since 2.*; wait for it"), claimed(tmp_path):  # fmt: skip
            pass
        holder.kill()
    with claimed(tmp_path):  # the killed process left its file
        stored = json.loads((tmp_path / ".running.json").read_text())
        assert stored["process"] == os.getpid()
    assert not (tmp_path / ".running.json").exists()


def test_a_process_with_the_number_of_an_ended_one_holds_nothing(tmp_path):
    alive = psutil.Process(os.getppid())
    claim = {"host": os.uname().nodename, "process": alive.pid, "started": alive.create_time() - 5}
    (tmp_path / ".running.json").write_text(json.dumps(claim))
    with claimed(tmp_path):
        pass


def test_a_claim_of_another_machine_holds_where_its_locks_do_not(tmp_path):
    claim = {"host": "elsewhere", "process": 7, "started": 1.0, "since": "2026-01-01 10:00"}
    (tmp_path / ".running.json").write_text(json.dumps(claim))
    with pytest.raises(StoreError, match=r"process 7 on elsewhere is running .*remove .*running\.json if"), claimed(tmp_path):  # fmt: skip
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 3}'])
def test_a_damaged_claim_is_no_obstacle_on_this_machine(content, tmp_path):
    (tmp_path / ".running.json").write_text(content)
    if content == '{"host": 3}':
        with pytest.raises(StoreError), claimed(tmp_path):
            pass
    else:
        with claimed(tmp_path):
            pass


def test_a_folder_in_which_nothing_was_stored_is_removed(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    with pytest.raises(ValueError, match="refused"), claimed(folder):
        raise ValueError("refused")
    assert not folder.exists()
    folder.mkdir()
    (folder / "study.yaml").write_text("name: toy")
    with claimed(folder):
        pass
    assert (folder / "study.yaml").is_file()

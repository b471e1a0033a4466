"""The hub that does not answer: one line within ten seconds, from the command line and in Python."""

import os
import socket
import subprocess
import sys
import time

import pytest

import tuneoff
from tests.hub import hub
from tuneoff.cli import hub as module
from tuneoff.cli.hub import offline_without_network, stay_offline_without_network
from tuneoff.errors import ModelError


@pytest.fixture
def online(monkeypatch):
    """No setting of the hub's client; it is not imported anew, so that the session stays offline."""
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # restored after the test, whatever it sets
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return monkeypatch


@pytest.fixture
def closed_port(online):
    """The address of a port of this machine on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    online.setenv("HF_ENDPOINT", address)
    return address


def test_names_on_the_hub_alone_are_asked_for(closed_port):
    stay_offline_without_network(["packaged:minilm", "./folder"], "reviews.csv")
    assert "HF_HUB_OFFLINE" not in os.environ
    stay_offline_without_network(["packaged:minilm"], "hf:someone/reviews")
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_hub_that_answers_is_used(online, tmp_path):
    with hub(tmp_path) as address:
        online.setenv("HF_ENDPOINT", address)
        stay_offline_without_network(["someone/tiny"])
    assert "HF_HUB_OFFLINE" not in os.environ


def test_a_hub_that_accepts_but_does_not_answer_is_not_waited_for(online):
    online.setattr(module, "_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        stay_offline_without_network(["someone/tiny"])
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_session_is_online_again_after_a_study(closed_port):
    import huggingface_hub.constants

    before = huggingface_hub.constants.HF_HUB_OFFLINE
    with offline_without_network(["someone/tiny"]):
        assert (os.environ["HF_HUB_OFFLINE"], huggingface_hub.constants.HF_HUB_OFFLINE) == ("1", True)
    assert "HF_HUB_OFFLINE" not in os.environ
    assert before == huggingface_hub.constants.HF_HUB_OFFLINE
    with pytest.raises(ModelError, match="'someone/tiny' is not in the cache of the Hugging Face hub, which does not"):
        tuneoff.compare("packaged:rotten-tomatoes", model="someone/tiny", strategies=["probe"], limits={"train": 100})


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "packaged:rotten-tomatoes", "--model", "someone/tiny", "--limit", "100"],
        ["inspect", "hf:someone/reviews"],
        ["params", "someone/tiny"],
    ],
)
def test_the_command_line_says_so_in_one_line(closed_port, tmp_path, arguments):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    started = time.monotonic()
    command = [sys.executable, "-m", "tuneoff", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is not in the cache of the Hugging Face hub, which does not answer; check the network" in done.stderr
    assert time.monotonic() - started < 30  # most of it imports, on a busy machine

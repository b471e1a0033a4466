"""The command serve: one line for what is missing, and a page at the printed address until Ctrl-C."""

import re
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from tests.tiny import toy_texts
from tuneoff import TextClassifier
from tuneoff.cli.serving import serve_models
from tuneoff.errors import LibraryError

pytest.importorskip("captum")
pytest.importorskip("starlette")


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tuneoff", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_the_page_is_at_the_printed_address_until_ctrl_c(tmp_path):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    TextClassifier("tfidf").fit(texts, labels).save(tmp_path / "model")
    with command(str(tmp_path / "model"), "--port", "0") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        address = next(matched[0] for line in lines if (matched := re.search(r"http://127\.0\.0\.1:\d+", line)))
        with urllib.request.urlopen(address) as page:
            assert b"Classify" in page.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
        assert "Traceback" not in process.communicate()[1]


@pytest.mark.slow
def test_a_folder_that_does_not_exist_is_one_line():
    with command("nowhere", "--port", "0") as process:
        _, error = process.communicate()
    assert process.returncode == 2
    assert error.strip() == "tuneoff: folder 'nowhere' does not exist; give a study's folder, e.g. results/reviews"


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(LibraryError, match=r"install it with pip install 'tuneoff\[serve\]'"):
        serve_models("results", "127.0.0.1", 0, None)

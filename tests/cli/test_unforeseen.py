"""An error that nothing foresaw: one line with the file of its traceback, exit code 70."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = "import tuneoff.cli.app as app; app.app = lambda **_: {}['\x1b[31mevil']; app.main()"


def run(cache, **environment):
    return subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        env={**os.environ, "TUNEOFF_CACHE": str(cache), **environment},
        timeout=60,
    )


def test_an_unforeseen_error_is_one_line_that_names_the_file_of_its_traceback(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 70
    (line,) = done.stderr.splitlines()
    assert line.startswith("tuneoff: unforeseen error, please report it: KeyError: ")
    assert "\x1b" not in line
    file = Path(line.rpartition("the traceback is in ")[2])
    assert file.parent == tmp_path / "tracebacks"
    assert "Traceback (most recent call last)" in file.read_text()


def test_a_traceback_goes_to_the_temporary_folder_where_the_cache_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    done = run(tmp_path / "file", TMPDIR=str(tmp_path))
    assert str(tmp_path / "traceback-") in done.stderr
    assert list(tmp_path.glob("traceback-*.txt"))


def test_debug_shows_the_traceback(tmp_path):
    done = run(tmp_path, TUNEOFF_DEBUG="1")
    assert done.returncode == 70
    assert "Traceback (most recent call last)" in done.stderr
    assert not list(tmp_path.iterdir())


STOPPED = """
import os, signal, sys
from tuneoff.cli.stopping import stops_in_one_line
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
def library(**_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        while True: pass
    except BaseException as error:
        raise {error} from error
with stops_in_one_line():
    if {imports}:
        library()
    import tuneoff.cli.app as app
    app.app = library
    app.main()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send")
@pytest.mark.parametrize("error", ["ImportError('half')", "OSError('half')"])
@pytest.mark.parametrize("imports", [True, False])
def test_an_error_that_a_library_makes_of_ctrl_c_is_a_stop(error, imports):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED.format(error=error, imports=imports)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == "tuneoff: stopped by Ctrl-C\n"
    assert done.returncode == 130

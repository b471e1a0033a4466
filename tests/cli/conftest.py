"""The command line as a function."""

import sys

import pytest

from tuneoff.cli import main
from tuneoff.cli.output import console


@pytest.fixture
def tuneoff(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder: -> (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(console, "width", 160)  # made when another test imported it, with the terminal's width

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tuneoff", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run

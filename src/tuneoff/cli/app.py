"""The program tuneoff: its commands, and errors as one line. A command calls a function of the package, and prints.

Imports are inside the commands: torch and transformers take seconds, and most commands need neither.
"""

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tuneoff import __version__
from tuneoff.cli.commands import compare, overview, plan, report, run
from tuneoff.cli.completion import complete_in_bash, is_bash_completion
from tuneoff.cli.imports import begin_imports
from tuneoff.cli.inspection import inspect
from tuneoff.cli.options import (
    Command,
)
from tuneoff.cli.stopping import asked_to_stop
from tuneoff.cli.unforeseen import EXIT_CODE, print_unforeseen
from tuneoff.cli.upkeep import clean, doctor, list_strategies, list_studies, params, verify
from tuneoff.cli.winner import check, embed, export, predict, serve, track
from tuneoff.errors import StopRequested, TuneoffError
from tuneoff.formats import show_control_characters

app = typer.Typer(
    help="Which way of fine-tuning a text classifier should you use, what does it cost, and is the difference real?",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# environment variables that keep progress bars, advice and retries of libraries off the screen; read at their import
_QUIET_LIBRARIES = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main() -> None:
    """Run the commands; an error that a user can fix is one line and exit code 2."""
    for variable, value in _QUIET_LIBRARIES.items():  # before any command: peft's options are checked by peft
        os.environ.setdefault(variable, value)
    _print_any_character()
    begin_imports()
    try:
        if is_bash_completion():
            complete_in_bash(app)
        else:
            app(standalone_mode=True)
    except (SystemExit, KeyboardInterrupt, StopRequested):
        raise
    except BaseException as error:  # the last resort; tokenizers' PanicException is no Exception
        if (number := asked_to_stop()) is not None:  # an import that it interrupted, say
            raise StopRequested(number) from error
        if isinstance(error, (TuneoffError, OSError)):  # OSError: a full disk, no permission
            print(f"tuneoff: {show_control_characters(' '.join(_message(error).split()))}", file=sys.stderr)
            sys.exit(2)
        print_unforeseen(error)
        sys.exit(EXIT_CODE)


def _print_any_character() -> None:
    """Write pipes and files in UTF-8, as JSON is, and what a terminal cannot show as "?".

    Windows writes pipes and files in its code page, which lacks most characters of the user's texts and labels.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            has_own_encoding = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=None if has_own_encoding else "utf-8", errors="replace")


def _message(error: Exception) -> str:
    """Return the message of an error. The system's own errors name a file and a cause, but nothing to do."""
    if isinstance(error, TuneoffError) or not isinstance(error, OSError):
        return str(error)
    from tuneoff.cache import cache_folder
    from tuneoff.files import full_disk_text, is_full_disk

    if is_full_disk(error):
        return full_disk_text(Path(str(error.filename or ".")))
    if error.filename is None:
        return str(error)
    place, cache = Path(str(error.filename)), cache_folder()
    is_in_cache = place == cache or cache in place.parents or place in cache.parents
    hint = "set TUNEOFF_CACHE to a folder that can be written" if is_in_cache else "check its path and permissions"
    return f"{place} cannot be read or written: {error.strerror or error}; {hint}"


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"tuneoff {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


# in the order of the help
for command in (compare, run, plan, report, overview, inspect, params, predict, embed, export, serve, track, check):
    app.command(cls=Command)(command)
app.command("strategies", cls=Command)(list_strategies)
app.command("studies", cls=Command)(list_studies)
for command in (verify, clean, doctor):
    app.command(cls=Command)(command)

"""A check of a tokenizer.json in a process of its own, with limits of time and memory, before this process reads it.

A tokenizer holds patterns and replacements that somebody wrote. A pattern may take for ever on a short text, and
replacements may multiply its length; the library cannot be interrupted. So a child loads the file and tokenizes texts
that such rules act on. What passes once is noted in the cache.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tuneoff.cache import cached_folder, fingerprint
from tuneoff.errors import ModelError, one_line

_SECONDS = 60.0  # on the clock; the probe itself limits the seconds of the processor
_PROBE = Path(__file__).with_name("tokenizer_try.py")


def check_tokenizer(name: str, file: Path) -> None:
    """Raise ModelError for a tokenizer that cannot be loaded, or is too slow or too large. name: of the model."""
    if not file.is_file():
        return  # it is converted from a vocabulary, which holds no patterns
    cached_folder(f"tokenizer-{fingerprint(file)}", lambda folder: _probe(name, file))


def _probe(name: str, file: Path) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_PROBE), str(file.resolve())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "RUST_BACKTRACE": "0"},
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"the tokenizer of {name!r} took more than {_SECONDS:g} s for a few short texts; use another tokenizer.json"
        ) from None
    if hasattr(signal, "SIGXCPU") and done.returncode == -signal.SIGXCPU:
        raise ModelError(
            f"the tokenizer of {name!r} is too slow: it did not load and tokenize a few short texts in time; use "
            "another tokenizer.json"
        )
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        reason = one_line(lines[-1], 200) if lines else f"its process ended with code {done.returncode}"
        raise ModelError(f"the tokenizer of {name!r} cannot be used: {reason}; use another tokenizer.json")

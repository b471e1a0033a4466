"""A child that parses a data file as data/isolated.py does, forked from a small process instead of started anew.

Starting a program takes half a second, and forking the process of the tests 15 ms: most of its memory is libraries that
a reader has no use for. Forking a process that holds the reader alone takes 3 ms.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO

from tuneoff.data import isolated

_CODE = struct.Struct("i")


class ForkedReader:
    """Stands in for the subprocess.Popen of data/isolated.py. One at a time."""

    def __init__(self, path: Path, rows: int, errors: IO[bytes]) -> None:
        read, write = os.pipe()
        self._server, self._is_over, self.returncode = _server(path.suffix == ".json"), False, 0
        socket.send_fds(self._server, [json.dumps([str(path), rows]).encode()], [write, errors.fileno()])
        os.close(write)
        self.pid = _received(self._server)
        self.stdout = os.fdopen(read, "rb")

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        if not self._is_over:
            self.returncode, self._is_over = _received(self._server), True
        return self.returncode

    def kill(self) -> None:
        """End it, if it has not ended."""
        if not self._is_over:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@functools.cache
def _server(has_pandas: bool) -> socket.socket:
    """Start a process that forks, and return the connection to it: it ends when this is closed.

    has_pandas: it holds pandas, which reads arrays of JSON, takes long to import and makes a fork twice as slow.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # each message arrives whole
    command = [sys.executable, "-m", "tests.hostile.forking", str(theirs.fileno()), *(["pandas"] if has_pandas else [])]
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}  # as data/isolated.py sets it
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=Path(__file__).parents[2], env=environment)
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # the last to be registered is the first to be called
    return ours


def _received(connection: socket.socket) -> int:
    message = connection.recv(_CODE.size)
    if not message:
        raise RuntimeError("the process that forks readers has ended")
    return int(_CODE.unpack(message)[0])


def serve(connection: socket.socket) -> None:
    """Fork a reader for each message; answer with its process id, and with its exit code when it has ended."""
    while True:
        message, files, _, _ = socket.recv_fds(connection, 2**16, 2)
        if not message:
            return
        child = os.fork()
        if child == 0:
            for number, file in zip((1, 2), files, strict=True):
                os.dup2(file, number)
            isolated.main(*json.loads(message))
        for file in files:
            os.close(file)
        connection.send(_CODE.pack(child))
        _, status = os.waitpid(child, 0)
        connection.send(_CODE.pack(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    for library in sys.argv[2:]:
        importlib.import_module(library)
    serve(socket.socket(fileno=int(sys.argv[1])))

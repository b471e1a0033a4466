"""A child that parses data files as data/isolated.py does, without a start for each of them.

Starting a program takes half a second, and forking the process of the tests 15 ms: most of its memory is libraries that
a reader has no use for. A small process that holds the reader alone forks a child, which parses file after file, each
under the limits of a child of its own. When it crashes, or runs into a limit, the next one is forked.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from tuneoff.data import isolated

_CODE = struct.Struct("i")
_END_SECONDS = 5.0  # for a child whose output nobody reads any more
_FILES = 50  # that a child parses: its limit of processor time is for all of them together
_FULL, _CLOSED = 100, 101  # exit codes of a child that has parsed as many, and of one that nobody talks to any more


class ForkedReader:
    """Stands in for the subprocess.Popen of data/isolated.py. One at a time."""

    def __init__(self, path: Path, rows: int, errors: IO[bytes]) -> None:
        read, write = os.pipe()
        self._server, self._is_over, self.returncode = _server(path.suffix == ".json"), False, 0
        socket.send_fds(self._server.connection, [json.dumps([str(path), rows]).encode()], [write, errors.fileno()])
        os.close(write)
        self.stdout = os.fdopen(read, "rb")

    def wait(self) -> int:
        """Wait for the end of the file, and return the exit code."""
        if not self._is_over:
            message = self._server.connection.recv(_CODE.size)
            if not message:
                raise RuntimeError("the process that forks readers has ended")
            (self.returncode,), self._is_over = _CODE.unpack(message), True
        return self.returncode

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._is_over:
            return
        # it ends by itself if it writes to what is closed
        if select.select([self._server.connection], [], [], _END_SECONDS)[0]:
            self.wait()
            return
        os.killpg(self._server.process.pid, signal.SIGKILL)  # a new process serves the next file
        self._is_over = True
        _server.cache_clear()


class _Server(NamedTuple):
    process: "subprocess.Popen[bytes]"  # the leader of a group of processes
    connection: socket.socket


@functools.cache
def _server(has_pandas: bool) -> _Server:
    """Start a process that forks. It ends when the connection to it is closed.

    has_pandas: it holds pandas, which reads arrays of JSON, and takes long to import.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # each message arrives whole
    command = [sys.executable, "-m", "tests.hostile.forking", str(theirs.fileno()), *(["pandas"] if has_pandas else [])]
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}  # as data/isolated.py sets it
    files, place = [theirs.fileno()], Path(__file__).parents[2]
    process = subprocess.Popen(command, pass_fds=files, cwd=place, env=environment, start_new_session=True)
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # the last to be registered is the first to be called
    return _Server(process, ours)


# ---- in the process that forks


def serve(connection: socket.socket) -> None:
    """Fork children one after another, and tell the exit code of one that ends in the middle of a file."""
    while True:
        child = os.fork()
        if child == 0:
            _parse_files(connection)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == _CLOSED:
            return
        if code != _FULL:
            connection.send(_CODE.pack(code))


class _Ended(BaseException):
    """The reader has called os._exit."""


def _parse_files(connection: socket.socket) -> NoReturn:
    """Parse the files that are asked for, and tell the exit code after each."""
    leave = os._exit

    def end(code: int) -> NoReturn:
        raise _Ended(code)

    os._exit = end  # type: ignore[assignment]
    for _ in range(_FILES):
        message, files, _, _ = socket.recv_fds(connection, 2**16, 2)
        if not message:
            leave(_CLOSED)
        os.dup2(files[1], 2)  # where libraries print why they abort
        sys.stdout, sys.stderr = os.fdopen(files[0], "w"), os.fdopen(files[1], "w", buffering=1)
        code = 0
        try:
            isolated.main(*json.loads(message))
        except _Ended as ended:
            (code,) = ended.args
        for file in (sys.stdout, sys.stderr):
            with contextlib.suppress(BrokenPipeError):  # the other end is closed
                file.close()
        if code not in (0, isolated._REFUSED):  # it lacked memory: no child to go on with
            leave(code)
        connection.send(_CODE.pack(code))
    leave(_FULL)


if __name__ == "__main__":
    for library in sys.argv[2:]:
        importlib.import_module(library)
    serve(socket.socket(fileno=int(sys.argv[1])))

"""A stand-in for the hub on loopback: serves folders of files as the hub's client asks for them.

The files of a dataset lie in ROOT/datasets/OWNER/NAME, those of a model in ROOT/models/OWNER/NAME.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """Serve until the block ends. Gives the address for HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            self._answer(with_body=True, asked=asked)

        def _answer(self, with_body: bool, asked: str = "") -> None:
            path = unquote(urlparse(self.path).path)
            if found := re.fullmatch(
                r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/[^/]+(/.*)?)?", path
            ):
                self._api(root / found[1] / found[2], found[2], found[3] or "revision", asked)
            elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                self._file(root / ("datasets" if found[1] else "models") / found[2] / found[3], with_body)
            else:
                self._missing("EntryNotFound")

        def _api(self, folder: Path, name: str, what: str, asked: str) -> None:
            if not folder.is_dir():
                return self._missing("RepoNotFound")
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            entries = [
                {"type": "file", "path": str(f.relative_to(folder)), "size": f.stat().st_size, "oid": _etag(f)}
                for f in files
            ]
            if what == "paths-info":
                entries = [entry for entry in entries if str(entry["path"]) in unquote(asked)]
            info = {"id": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0,
                    "likes": 0, "siblings": [{"rfilename": entry["path"]} for entry in entries]}  # fmt: skip
            return self._send(
                json.dumps(info if what == "revision" else entries).encode(), {"Content-Type": "application/json"}, True
            )

        def _file(self, file: Path, with_body: bool) -> None:
            if not file.is_file():
                return self._missing("EntryNotFound")
            return self._send(file.read_bytes(), {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": COMMIT}, with_body)

        def _missing(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            start = 0
            if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                start, end = int(found[1]), int(found[2] or len(body) - 1)
                headers = {**headers, "Content-Range": f"bytes {start}-{end}/{len(body)}"}
                body = body[start : end + 1]
            self.send_response(206 if "Content-Range" in headers else 200)
            for name, value in {**headers, "Content-Length": str(len(body)), "Accept-Ranges": "bytes"}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()

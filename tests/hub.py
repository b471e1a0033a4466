"""Local HTTP server with the part of the Hugging Face hub's API that downloads and uploads use.

It stores uploads to models with the token TOKEN, and refuses others. It serves datasets from ROOT/datasets/OWNER/NAME and models from ROOT/models/OWNER/NAME.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

TOKEN = "hf_test"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """Serve the folder `root` until the block ends. Yields the address for HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond(with_body=True)

        def do_HEAD(self) -> None:
            self._respond(with_body=False)

        def do_POST(self) -> None:
            request_body = self._read_body().decode()
            if match := re.fullmatch(
                r"/api/(repos/create|validate-yaml|models/(.+/.+)/(preupload|commit)/main)", self._path
            ):
                self._accept(match[1] if match[2] is None else match[3], match[2], request_body)
                return
            self._respond(with_body=True, request_body=request_body)

        @property
        def _path(self) -> str:
            return unquote(urlparse(self.path).path)

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _accept(self, endpoint: str, name: str | None, body: str) -> None:
            """Part of an upload: create a repository, check its card, say how to send files, store them."""
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.send_response(401)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            reply: dict[str, object] = {"errors": [], "warnings": []}
            if endpoint == "repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                (root / "models" / name).mkdir(parents=True, exist_ok=True)
                (root / "created.json").write_text(body)
                reply = {"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name}
            elif endpoint == "preupload":
                files = json.loads(body)["files"]
                reply = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            elif endpoint == "commit":
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        file = root / "models" / str(name) / line["value"]["path"]
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(base64.b64decode(line["value"]["content"]))
                reply = {"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
            self._send(json.dumps(reply).encode(), {"Content-Type": "application/json"}, True)

        def _respond(self, with_body: bool, request_body: str = "") -> None:
            path = unquote(urlparse(self.path).path)
            if match := re.fullmatch(
                r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/[^/]+(/.*)?)?", path
            ):
                self._send_listing(root / match[1] / match[2], match[2], match[3] or "revision", request_body)
            elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                self._send_file(root / ("datasets" if match[1] else "models") / match[2] / match[3], with_body)
            else:
                self._send_not_found("EntryNotFound")

        def _send_listing(self, folder: Path, name: str, endpoint: str, request_body: str) -> None:
            if not folder.is_dir():
                return self._send_not_found("RepoNotFound")
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            entries = [
                {"type": "file", "path": str(f.relative_to(folder)), "size": f.stat().st_size, "oid": _etag(f)}
                for f in files
            ]
            if endpoint == "paths-info":
                entries = [entry for entry in entries if str(entry["path"]) in unquote(request_body)]
            info = {"id": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0,
                    "likes": 0, "siblings": [{"rfilename": entry["path"]} for entry in entries]}  # fmt: skip
            return self._send(
                json.dumps(info if endpoint == "revision" else entries).encode(),
                {"Content-Type": "application/json"},
                True,
            )

        def _send_file(self, file: Path, with_body: bool) -> None:
            if not file.is_file():
                return self._send_not_found("EntryNotFound")
            return self._send(file.read_bytes(), {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": COMMIT}, with_body)

        def _send_not_found(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            start = 0
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                start, end = int(match[1]), int(match[2] or len(body) - 1)
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

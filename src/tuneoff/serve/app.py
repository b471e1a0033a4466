"""A page on this machine to try the models of a study on, and the same as JSON: GET /, GET /models, POST /predict.

It is for the person at the keyboard: it listens on loopback, checks the Host header against DNS rebinding (a page of
another site whose name resolves to this machine), takes JSON only, which other sites cannot send without CORS, and
allows none. Texts are never stored. Limits keep a mistaken client from occupying the machine; a server for many users
needs more than this module.
"""

import base64
import contextlib
import hashlib
import ipaddress
import json
import re
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import jinja2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tuneoff.deliver.classifier import as_texts
from tuneoff.errors import ConfigError, StopRequested, TuneoffError, unknown
from tuneoff.serve.models import ServedModel

_FOLDER = Path(__file__).parent
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """Largest requests, and how many."""

    body_bytes: int = 1_000_000
    texts: int = 64  # of a request
    characters: int = 20_000  # of a text
    requests_per_minute: int = 240
    seconds: float = 60.0  # of a request, waiting for the others included
    body_seconds: float = 10.0  # until a body has arrived


class Prediction(BaseModel):
    """Body of POST /predict."""

    model_config = ConfigDict(extra="forbid", strict=True)

    texts: list[str | list[str]] = Field(min_length=1)  # of pairs: lists of two texts
    strategy: str | None = None  # one of GET /models; by default all
    explain: bool = False  # also attribute the label of one text to its words


class Refused(Exception):
    """A request that is refused with a status and a reason."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


@dataclass
class _Server:
    """The endpoints, and the state that their limits need."""

    models: Sequence[ServedModel]
    name: str
    host: str  # that it listens on
    limits: Limits
    times: deque[float] = field(default_factory=deque)  # of the requests of the last minute
    # one computation at a time: torch uses all cores. A computation whose request was given up keeps its place
    turns: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    def __post_init__(self) -> None:
        self.page, self.policy = _page(self.name)

    async def show_page(self, request: Request) -> Response:
        return HTMLResponse(self.page, headers={"Content-Security-Policy": self.policy})

    async def list_models(self, request: Request) -> Response:
        saved = self.models[0].classifier.saved
        limits = {name: getattr(self.limits, name) for name in ("body_bytes", "texts", "characters")}
        return JSONResponse(
            {
                "study": self.name,
                "classes": list(saved.label_names),
                "is_pair": saved.is_pair,
                "is_multilabel": saved.is_multilabel,
                "models": [model.describe() for model in self.models],
                "limits": {**limits, "requests_per_minute": self.limits.requests_per_minute},
            }
        )

    async def predict(self, request: Request) -> Response:
        wanted = await self._wanted(request)
        chosen = [model for model in self.models if wanted.strategy in (None, model.label)]
        if not chosen:
            raise Refused(422, unknown("strategy", str(wanted.strategy), [model.label for model in self.models]))
        try:
            with anyio.fail_after(self.limits.seconds):
                results = await anyio.to_thread.run_sync(
                    _results, chosen, wanted, limiter=self.turns, abandon_on_cancel=True
                )
        except TimeoutError:
            raise Refused(
                503, f"no result within {self.limits.seconds:g} s; send fewer or shorter texts", {"Retry-After": "10"}
            ) from None
        except TuneoffError as error:
            raise Refused(422, str(error)) from None
        return JSONResponse({"classes": list(self.models[0].classifier.saved.label_names), "results": results})

    async def _wanted(self, request: Request) -> Prediction:
        """Return the body of a request. Raises Refused for one that is too large, no JSON, or does not fit."""
        self._count()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, f"Content-Type is {kind or 'missing'!r}; send application/json")
        try:
            given = json.loads(await self._body(request))
        except (ValueError, RecursionError):
            raise Refused(400, 'the body is not JSON; send {"texts": ["..."]}') from None
        try:
            wanted = Prediction.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise Refused(422, f'{where}: {first["msg"]}; send {{"texts": ["..."]}}') from None
        if len(wanted.texts) > self.limits.texts:
            raise Refused(422, f"{len(wanted.texts)} texts; send at most {self.limits.texts} at a time")
        if wanted.explain and len(wanted.texts) > 1:
            raise Refused(422, f"explain is for one text, and there are {len(wanted.texts)}; send one at a time")
        for text in (piece for row in wanted.texts for piece in ([row] if isinstance(row, str) else row)):
            if len(text) > self.limits.characters:
                raise Refused(422, f"a text has {len(text):,} characters; send at most {self.limits.characters:,}")
            if not _is_encodable(text):
                raise Refused(422, "a text holds half of a surrogate pair, which is no character; leave it out")
        return wanted

    async def _body(self, request: Request) -> bytes:
        too_large = Refused(413, f"the body is too large; send at most {self.limits.body_bytes:,} bytes")
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.limits.body_bytes:
            raise too_large
        body = bytearray()
        try:
            with anyio.fail_after(self.limits.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self.limits.body_bytes:
                        raise too_large
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {self.limits.body_seconds:g} s") from None
        except ClientDisconnect:
            raise Refused(400, "the connection was closed before the body had arrived") from None
        return bytes(body)

    def _count(self) -> None:
        """Raise Refused for more requests in a minute than the limit."""
        now = time.monotonic()
        while self.times and now - self.times[0] > 60:
            self.times.popleft()
        if len(self.times) >= self.limits.requests_per_minute:
            wait = {"Retry-After": str(int(60 - (now - self.times[0])) + 1)}
            raise Refused(429, f"more than {self.limits.requests_per_minute} requests in a minute; wait", wait)
        self.times.append(now)

    def guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint behind the check of the Host header, with one JSON shape for every refusal."""

        async def checked(request: Request) -> Response:
            try:
                if not is_allowed_host(request.headers.get("host", ""), self.host):
                    raise Refused(400, "the Host header names another machine; open the address that tuneoff printed")
                response = await endpoint(request)
            except Refused as refused:
                response = JSONResponse({"error": refused.reason}, refused.status, refused.headers)
            response.headers.update(_HEADERS)
            return response

        return checked


def create_app(
    models: Sequence[ServedModel], name: str, host: str = "127.0.0.1", limits: Limits | None = None
) -> Starlette:
    """Return the application. host: that it listens on, which decides the allowed Host headers."""
    server = _Server(models, name, host, limits or Limits())
    return Starlette(
        routes=[
            Route("/", server.guarded(server.show_page), methods=["GET"]),
            Route("/models", server.guarded(server.list_models), methods=["GET"]),
            Route("/predict", server.guarded(server.predict), methods=["POST"]),
        ]
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ConfigError for an address that cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}; choose another --port or --host") from error


def serve(app: Starlette, listening: socket.socket) -> None:
    """Answer requests until Ctrl-C."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", server_header=False, limit_concurrency=64, timeout_keep_alive=5)
    with contextlib.suppress(KeyboardInterrupt, StopRequested):
        uvicorn.Server(config).run(sockets=[listening])


def is_allowed_host(header: str, listens_on: str) -> bool:
    """Return True if a Host header names this machine: localhost, an address, or the host that was chosen.

    DNS rebinding needs a name that an attacker controls, so that addresses are safe.

    >>> [is_allowed_host(header, "127.0.0.1") for header in ("localhost:8000", "[::1]:8000", "evil.example:8000")]
    [True, True, False]
    """
    matched = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::\d+)?", header)
    if matched is None:
        return False
    name = matched[1].strip("[]").lower()
    if name in ("localhost", listens_on.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _results(models: Sequence[ServedModel], wanted: Prediction) -> list[dict[str, Any]]:
    rows = [tuple(row) if isinstance(row, list) else row for row in wanted.texts]
    texts = as_texts(rows, models[0].classifier.saved.is_pair)
    return [_result(model, texts, wanted.explain) for model in models]


def _result(model: ServedModel, texts: Any, is_explained: bool) -> dict[str, Any]:
    classifier, names = model.classifier, model.classifier.saved.label_names
    probabilities = classifier.predict_proba(texts)
    labels = classifier.labels_from(probabilities)
    if labels.ndim == 2:
        predicted: list[Any] = [[names[i] for i in np.flatnonzero(row)] for row in labels]
    else:
        predicted = [names[label] for label in labels]
    result = {**model.describe(), "labels": predicted, "probabilities": probabilities.tolist()}
    if is_explained:
        # of multi-label data the most probable label
        label = int(labels[0]) if labels.ndim == 1 else int(probabilities[0].argmax())
        result |= _explained(model, texts, label)
    return result


def _explained(model: ServedModel, texts: Any, label: int) -> dict[str, Any]:
    """Return the words that decided, or the reason why they are not shown."""
    try:
        attribution = model.attribution(texts, label)
    except ConfigError as error:
        return {"words": None, "words_reason": str(error)}
    pieces = [column[0].as_py() for column in texts.columns]
    return {
        "explained": model.classifier.saved.label_names[label],
        "score": attribution.score,
        "baseline": attribution.baseline,
        "words": [{**vars(word), "text": pieces[word.part][word.start : word.end]} for word in attribution.words],
    }


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _page(name: str) -> tuple[str, str]:
    """Return the page, and the content security policy that allows its own style and script alone."""
    folders = [_FOLDER, _FOLDER.parent / "report"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("page_to_try.html.j2").render(name=name)
    hashes = {tag: _hash(re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)) for tag in ("style", "script")}
    policy = (
        f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _hash(matched: "re.Match[str] | None") -> str:
    assert matched is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(matched[1].encode()).digest()).decode()}'"

"""Asks an app behind either door as a server would, and tells what came of it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from wsgiref.validate import validator

import structlog

from kwai_middleware._caller import Caller
from kwai_middleware._context import current_caller, current_slot, explain
from kwai_middleware.asgi import ASGIMiddleware
from kwai_middleware.wsgi import WSGIMiddleware

Headers = Sequence[tuple[str, str | bytes]]
Peer = tuple[str, int] | None

LOOPBACK: Peer = ("127.0.0.1", 50000)


@dataclass
class Seen:
    """What the app saw, and what the client got."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    app_ran: bool = False
    caller: Caller | None = None
    customer_id: Any = None
    origins: Any = None
    keys_asked_for: bool = False
    """Whether a call of this request would look for the caller's keys elsewhere."""
    app_headers: list[tuple[str, str]] = field(default_factory=list)
    request: Any = None
    """The scope or environ, as it is after the request."""

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document."""
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        return document

    def look(self) -> None:
        """Note who is current."""
        self.app_ran = True
        self.caller = current_caller()
        self.origins = explain()
        unsettled = current_slot().unsettled
        self.keys_asked_for = unsettled is not None and unsettled.keys is not None
        self.customer_id = structlog.contextvars.get_contextvars().get("customer_id")


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


class ASGIDoor:
    """An app behind `ASGIMiddleware`."""

    name = "asgi"

    def scope(self, headers: Headers, method: str, path: str, peer: Peer) -> dict[str, Any]:
        """What a server hands over."""
        return {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.lower().encode("latin-1"), _bytes(value)) for name, value in headers],
            "client": peer,
            "server": ("/run/app.sock", None) if peer is None else ("127.0.0.1", 8000),
        }

    def wrap(self, seen: Seen, **options: Any) -> ASGIMiddleware:
        """The middleware around an app that looks."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.look()
            seen.app_headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"app"})

        return ASGIMiddleware(app, **options)

    def ask(
        self,
        headers: Headers = (),
        *,
        method: str = "GET",
        path: str = "/",
        peer: Peer = LOOPBACK,
        through: Callable[[Any], Any] = lambda app: app,
        **options: Any,
    ) -> Seen:
        """Send one request; `through` may wrap the middleware once more."""
        seen = Seen()
        seen.request = self.scope(headers, method, path, peer)
        return self.send(through(self.wrap(seen, **options)), seen)

    def send(self, app: Any, seen: Seen) -> Seen:
        """Run an app for the request in `seen`."""

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                seen.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                seen.body += message["body"]

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        asyncio.run(app(seen.request, receive, send))
        return seen


class WSGIDoor:
    """An app behind `WSGIMiddleware`, with a referee of the protocol on both sides."""

    name = "wsgi"

    def environ(self, headers: Headers, method: str, path: str, peer: Peer) -> dict[str, Any]:
        """What a server hands over: duplicates joined by a comma, each byte a character."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": "",
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "" if peer is None else peer[0],
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if peer is not None:
            environ["REMOTE_PORT"] = str(peer[1])
        for name, value in headers:
            key = "HTTP_" + name.upper().replace("-", "_")
            text = _bytes(value).decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        return environ

    def wrap(self, seen: Seen, **options: Any) -> WSGIMiddleware:
        """The middleware around an app that looks."""

        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            seen.look()
            seen.app_headers = [
                (key[5:].lower().replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")
            ]
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"app"]

        return WSGIMiddleware(validator(app), **options)

    def ask(
        self,
        headers: Headers = (),
        *,
        method: str = "GET",
        path: str = "/",
        peer: Peer = LOOPBACK,
        through: Callable[[Any], Any] = lambda app: app,
        **options: Any,
    ) -> Seen:
        """Send one request; `through` may wrap the middleware once more."""
        seen = Seen()
        seen.request = self.environ(headers, method, path, peer)
        return self.send(through(self.wrap(seen, **options)), seen)

    def send(self, app: Any, seen: Seen) -> Seen:
        """Run an app for the request in `seen`."""

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            seen.status = int(status.split(" ", 1)[0])
            seen.headers = {name.lower(): value for name, value in headers}
            return seen_body.append

        seen_body: list[bytes] = []
        body = validator(app)(seen.request, start_response)
        try:
            seen_body.extend(body)
        finally:
            body.close()
        seen.body = b"".join(seen_body)
        return seen


Door = ASGIDoor | WSGIDoor
DOORS: tuple[Door, ...] = (ASGIDoor(), WSGIDoor())

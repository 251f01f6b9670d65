"""Whether the server lets the app see who connects, and deliver what is left when it ends."""

from __future__ import annotations

import inspect
import ipaddress
import os
import sys
from collections.abc import Collection, Iterator
from typing import Any, Final

from kwai_middleware._cli.doctor_examined import PROVEN, Door, Examined
from kwai_middleware._cli.doctor_findings import Finding
from kwai_middleware._cli.doctor_server import KNOWN, Server
from kwai_middleware.asgi import ASGIMiddleware

__all__ = ["check_server"]

_BY_SECRET: Final = f"identify={PROVEN}"
_FIXED_IN: Final = (3, 15)
"""The Python in whose event loop a connection does not keep the context of an earlier request."""


def check_server(examined: Examined) -> Iterator[Finding]:
    """Look at the command line behind `--`, with the environment."""
    server = examined.server
    doors = list(examined.doors())
    if server is None:
        what = "not looked at: give the server's command after --, as in: doctor module:app -- uvicorn module:app"
        yield Finding("server", "note", "server-unknown", what)
        if examined.environ.get("FORWARDED_ALLOW_IPS", "").strip() == "*":
            what = "FORWARDED_ALLOW_IPS is *: under uvicorn, whoever connects chooses the address that the app sees"
            yield Finding("server", "note", "forwarded-by-anyone", what, change="unset FORWARDED_ALLOW_IPS")
        return
    if server.name not in KNOWN:
        what = f"{server.name} is none of {', '.join(KNOWN)}: its options are not looked at"
        yield Finding("server", "note", "server-unknown", what)
        return
    findings = [*_unread(server), *_addresses(examined, server, doors), *_running(server, doors)]
    yield from findings
    if not findings:
        yield Finding("server", "ok", "server", f"{server.name}, on {', '.join(server.hosts) or 'no address'}")


def _unread(server: Server) -> Iterator[Finding]:
    """Say which files have a word in it, too."""
    file = _file_of(server)
    if file:
        yield Finding("server", "note", "server-file", f"{file} is not read; what it sets is not looked at")


def _file_of(server: Server) -> str | None:
    if server.name == "uwsgi":
        return next((word for word in server.words if word.endswith((".ini", ".yaml", ".yml", ".xml", ".json"))), None)
    default = "gunicorn.conf.py" if server.name == "gunicorn" and os.path.exists("gunicorn.conf.py") else None
    return default if server.name == "uvicorn" else server.value("--config", "-c") or default


def _addresses(examined: Examined, server: Server, doors: list[Door]) -> Iterator[Finding]:
    by_address = [(door, source) for door in doors for source in door.by_address]
    for door, source in by_address:
        where = examined.line_of("HeaderIdentity", door.layer.name)
        yield from _rewritten(server, source.trusted_peers, where)
        if server.is_open and "*" not in source.trusted_peers:
            what = (
                f"{server.name} listens on all addresses, and HeaderIdentity tells the proxy by its address: a proxy in"
                " another container is not believed, and a published port or tunnel makes strangers local"
            )
            yield Finding("server", "warning", "open-by-address", what, where, _BY_SECRET)
        if server.name == "gunicorn" and server.value("--proxy-protocol") not in (None, "off"):
            yield _from_a_line(server, where)
    if server.trusted is not None and "*" in _listed(server.trusted) and not by_address:
        what = "--forwarded-allow-ips is *: whoever connects chooses the address that the app sees (no caller, though)"
        yield Finding("server", "note", "forwarded-by-anyone", what, change=_without(server))
    if server.name == "gunicorn" and server.value("--header-map") == "dangerous" and not server.is_uvicorn:
        what = "gunicorn takes X_Customer_Id for X-Customer-Id: a client's twin of a header passes for the proxy's"
        yield Finding("server", "error", "header-map", what, "--header-map dangerous", "--header-map drop")


def _rewritten(server: Server, peers: Collection[str], where: str) -> Iterator[Finding]:
    if server.trusted is None or not _overlap(_listed(server.trusted), peers):
        return
    what = (
        "uvicorn puts the address in X-Forwarded-For in the proxy's place, which then proves nothing: identity headers"
        " that come through a proxy are ignored"
    )
    change = f"uvicorn ... --no-proxy-headers, or {_BY_SECRET}" if server.name == "uvicorn" else _BY_SECRET
    yield Finding("server", "warning", "peer-rewritten", what, where, change)


def _from_a_line(server: Server, where: str) -> Finding:
    if server.worker == "asgi" or "gasgi" in server.worker:
        what = (
            "with --proxy-protocol gunicorn's ASGI worker shows the address in a PROXY line as the connection's own: a"
            " client whose address is one of trusted_peers, or who may write such a line, passes for the proxy"
        )
        return Finding("server", "error", "peer-forged", what, where, _BY_SECRET)
    what = "--proxy-protocol puts the client's address in the proxy's place: identity headers are ignored"
    return Finding("server", "warning", "peer-rewritten", what, where, _BY_SECRET)


def _without(server: Server) -> str:
    return f"{server.name} ... --forwarded-allow-ips 127.0.0.1"


def _running(server: Server, doors: list[Door]) -> Iterator[Finding]:
    is_asgi = any(isinstance(door.layer.instance, ASGIMiddleware) for door in doors)
    option = {"uvicorn": "--lifespan", "gunicorn": "--asgi-lifespan"}.get(server.name)
    if is_asgi and option is not None and server.value(option) == "off":
        what = f"{option} off: nothing delivers the records that wait when the server ends, before it starts again"
        yield Finding("server", "warning", "lifespan-off", what, f"{option} off", f"{option} on")
    if server.name == "uwsgi" and _file_of(server) is None and not _has_threads(server):
        what = "uWSGI may run no threads of the app: then calls are not recorded, and nothing is delivered"
        yield Finding("server", "warning", "uwsgi-threads", what, change="uwsgi ... --enable-threads")
    if server.is_uvicorn and server.loop == "asyncio" and sys.version_info < _FIXED_IN:
        if server.is_given("--reset-contextvars"):
            return
        what = (
            "asyncio lets a request begin with the context variables of the one before on its connection"
            " (python/cpython#140947): callers are safe from it, context variables of the app's own are not"
        )
        yield Finding("server", "note", "context-kept", what, change=_kept_apart(server))


def _kept_apart(server: Server) -> str:
    if server.name == "gunicorn":
        return "gunicorn ... -k uvicorn.workers.UvicornWorker, and pip install uvloop"
    flag = "--reset-contextvars" if _has_flag() else "--reset-contextvars (of a newer uvicorn)"
    return f"uvicorn ... {flag}, or --loop uvloop"


def _has_flag() -> bool:
    try:
        import uvicorn
    except ImportError:
        return False
    configuration: Any = uvicorn.Config
    return "reset_contextvars" in inspect.signature(configuration).parameters


def _has_threads(server: Server) -> bool:
    threads = server.value("--threads") or ""
    return server.is_given("--enable-threads") or server.is_given("-T") or (threads.isdecimal() and int(threads) > 1)


def _overlap(trusted: list[str], peers: Collection[str]) -> bool:
    """Whether the server takes another address from one of these peers."""
    if "*" in trusted:
        return True
    known, asked = _networks(trusted), _networks(peers)
    return any(one.version == other.version and one.overlaps(other) for one in known for other in asked)


def _networks(words: Collection[str]) -> list[Any]:
    found: list[Any] = []
    for word in words:
        try:
            found.append(ipaddress.ip_network(word))
        except ValueError:
            continue
    return found


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]

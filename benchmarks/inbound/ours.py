"""This library's middleware, configured as one does behind a proxy that says who the customer is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.inbound.incoming import CUSTOMER, KEY, PROXY
from benchmarks.inbound.wrapping import SetUp, Wrapping

__all__ = ["asgi", "flask", "wsgi"]


def asgi(sent: str, *, with_structlog: bool) -> SetUp:
    """Around an ASGI app.

    Args:
        sent: What a request has for us: `nothing`, `identity`, `identity and key`.
        with_structlog: Whether the customer is bound for structlog, as is the default.
    """

    @contextmanager
    def set_up() -> Iterator[Wrapping]:
        from kwai_middleware import ASGIMiddleware, HeaderIdentity

        identify = HeaderIdentity(trusted_peers=[PROXY])
        yield Wrapping(
            lambda app: ASGIMiddleware(app, identify=identify, bind_structlog=with_structlog),
            lambda: _is_bound(sent, with_structlog),
        )

    return set_up


def wsgi(sent: str, *, with_structlog: bool) -> SetUp:
    """The same around a WSGI app."""

    @contextmanager
    def set_up() -> Iterator[Wrapping]:
        from kwai_middleware import HeaderIdentity, WSGIMiddleware

        identify = HeaderIdentity(trusted_peers=[PROXY])
        yield Wrapping(
            lambda app: WSGIMiddleware(app, identify=identify, bind_structlog=with_structlog),
            lambda: _is_bound(sent, with_structlog),
        )

    return set_up


def flask(sent: str) -> SetUp:
    """The same around the WSGI app of a Flask app."""

    @contextmanager
    def set_up() -> Iterator[Wrapping]:
        from kwai_middleware import HeaderIdentity, WSGIMiddleware

        def wrap(app: Any) -> Any:
            app.wsgi_app = WSGIMiddleware(app.wsgi_app, identify=HeaderIdentity(trusted_peers=[PROXY]))
            return app

        yield Wrapping(wrap, lambda: _is_bound(sent, with_structlog=True))

    return set_up


def _is_bound(sent: str, with_structlog: bool) -> bool:
    import structlog

    from kwai_middleware import current_caller

    logged = structlog.contextvars.get_contextvars().get("customer_id")
    caller = current_caller()
    if sent == "nothing":
        return caller is None and logged is None
    if caller is None or caller.identifier != CUSTOMER or logged != (CUSTOMER if with_structlog else None):
        return False
    keys = [credential.api_key.reveal() for credential in caller.credentials]
    return keys == ([KEY] if "key" in sent else [])

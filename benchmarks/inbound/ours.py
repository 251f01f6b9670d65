"""This library's middleware, configured as one does behind a proxy that says who the customer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.inbound.incoming import CUSTOMER, EVERYTHING, KEY, PROXY
from benchmarks.inbound.wrapping import SetUp, Wrapping
from benchmarks.plan import Prepare, Variant

__all__ = ["asgi", "flask", "in_all_ways", "wsgi"]


def asgi(sent: str = EVERYTHING, *, with_structlog: bool = True) -> SetUp:
    """Around an ASGI app.

    Args:
        sent: What a request has for us: `nothing`, `identity`, `identity and key`.
        with_structlog: Whether the customer is bound for structlog, as is the default.
    """
    return _behind_a_proxy(lambda kwai, app, **options: kwai.ASGIMiddleware(app, **options), sent, with_structlog)


def wsgi(sent: str = EVERYTHING, *, with_structlog: bool = True) -> SetUp:
    """The same around a WSGI app."""
    return _behind_a_proxy(lambda kwai, app, **options: kwai.WSGIMiddleware(app, **options), sent, with_structlog)


def flask(sent: str = EVERYTHING) -> SetUp:
    """The same around the WSGI app of a Flask app."""

    def wrap(kwai: Any, app: Any, **options: Any) -> Any:
        app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app, **options)
        return app

    return _behind_a_proxy(wrap, sent, with_structlog=True)


def in_all_ways(prepare: Callable[[SetUp, str], Prepare], around: Callable[..., SetUp]) -> Iterator[Variant]:
    """Yield a variant for each that a request may have for us, with structlog and without."""
    said = {EVERYTHING: "identity, key", "identity": "identity", "nothing": "none of our headers"}
    for sent, name in said.items():
        yield Variant(f"{name}, structlog", "ours", prepare(around(sent), sent))
        yield Variant(name, "ours", prepare(around(sent, with_structlog=False), sent))


def _behind_a_proxy(wrap: Callable[..., Any], sent: str, with_structlog: bool) -> SetUp:
    @contextmanager
    def set_up() -> Iterator[Wrapping]:
        import kwai_middleware as kwai

        identify = kwai.HeaderIdentity(trusted_peers=[PROXY])
        yield Wrapping(
            lambda app: wrap(kwai, app, identify=identify, bind_structlog=with_structlog),
            lambda: _is_bound(sent, with_structlog),
        )

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

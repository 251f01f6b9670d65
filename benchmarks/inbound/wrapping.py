"""What stands between a server and an app in one variant, and how to tell that it does its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Inside", "SetUp", "Wrapping", "floor_asgi", "floor_wsgi", "nothing"]

Inside = Callable[[], object]
"""What an app does for each request before it answers: in the one that is looked at, not in those that count."""


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Wrapping:
    """A middleware, configured.

    Attributes:
        wrap: Takes an app and returns it with the middleware around it.
        is_seen: Asked inside the app during one request, before anything is measured: whether the app sees what
            the middleware is there for.
        has_arrived: Asked after that request: whether what is sent somewhere has arrived there.
    """

    wrap: Callable[[Any], Any]
    is_seen: Callable[[], bool] = _always
    has_arrived: Callable[[], bool] = _always

    def check(self, serve: Callable[[Inside], object]) -> None:
        """See that it does its work, in one request.

        Args:
            serve: Serves it with an app that does something inside.
        """
        seen: list[bool] = []
        serve(lambda: seen.append(self.is_seen()))
        assert seen == [True], "the app did not see what this is there for"
        assert self.has_arrived(), "what this sends did not arrive"


SetUp = Callable[[], AbstractContextManager[Wrapping]]
"""Sets it up in the variant's own process, and takes it down."""

_variable: Final[ContextVar[str | None]] = ContextVar("who", default=None)


def _is_set() -> bool:
    return _variable.get() == "someone"


@contextmanager
def nothing() -> Iterator[Wrapping]:
    """The bare app."""
    yield Wrapping(lambda app: app)


@contextmanager
def floor_asgi() -> Iterator[Wrapping]:
    """The least that binds anything to a request: one context variable, set and reset."""

    def wrap(app: Any) -> Any:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            token = _variable.set("someone")
            try:
                await app(scope, receive, send)
            finally:
                _variable.reset(token)

        return middleware

    yield Wrapping(wrap, _is_set)


@contextmanager
def floor_wsgi() -> Iterator[Wrapping]:
    """The same for WSGI: it does not reach into a body that is made later."""

    def wrap(app: Any) -> Any:
        def middleware(environ: Any, start_response: Any) -> Any:
            token = _variable.set("someone")
            try:
                return app(environ, start_response)
            finally:
                _variable.reset(token)

        return middleware

    yield Wrapping(wrap, _is_set)

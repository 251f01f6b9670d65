"""A WSGI body that stays in the context of its request."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator

__all__ = ["BodyInContext"]


class BodyInContext:
    """Runs each step of a body in one context, on whatever thread the server takes that step.

    A server reads the body after the app has returned, and closes it where it likes. Closing happens
    once, also when the server never does it.

    Args:
        body: What the app returned.
        context: A context of this request's own, in which the app has run.
    """

    __slots__ = ("_close", "_context", "_next", "_run")

    def __init__(self, body: Iterable[bytes], context: contextvars.Context) -> None:
        self._close: Callable[[], object] | None = getattr(body, "close", None)
        self._context = context
        self._run = context.run
        iterator: Iterator[bytes] = context.run(iter, body)
        self._next = iterator.__next__

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._run(self._next)

    def close(self) -> None:
        """Close the body, the first time."""
        close, self._close = self._close, None
        if close is None:
            return
        entered = False

        def close_here() -> None:
            nonlocal entered
            entered = True
            close()

        try:
            self._run(close_here)
        except RuntimeError:
            if entered:
                raise
            # Another thread, or a frame below this one, is inside next(): the context cannot be
            # entered twice, but a copy of it can.
            self._context.copy().run(close)

    def __del__(self) -> None:
        self.close()

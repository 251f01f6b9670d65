"""Our own bug must never fail an app's call, and must always be seen.

Everything that happens on the recording side of a call runs in `never_raise`. What it swallows is
counted, logged once per place, and told to whoever listens: the tests listen, and fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final

from kwai_middleware._tally import Tally

__all__ = ["never_raise", "on_swallowed", "report", "swallowed"]

_logger: Final = logging.getLogger("kwai_middleware")
_listeners: Final[list[Callable[[BaseException], object]]] = []
_seen: Final[set[tuple[str, str, int]]] = set()
_counts: Final[dict[str, Tally]] = {}


def report(error: BaseException) -> None:
    """Count a swallowed error and log it, without its values, once per type and place."""
    try:
        kind = type(error).__name__
        _counts.setdefault(kind, Tally()).add()
        place = _place(error)
        if (kind, *place) not in _seen and len(_seen) < 1000:
            _seen.add((kind, *place))
            # Neither the text nor the locals: both may quote a prompt or a key.
            _logger.error(
                "kwai_middleware: swallowed its own %s at %s:%d; the app is not affected, the record of a call may be"
                " incomplete. Please report it.",
                kind,
                *place,
            )
        for listener in tuple(_listeners):
            listener(error)
    except Exception:  # noqa: BLE001, S110 - the last line of defence: a broken log handler ends here
        pass


def swallowed() -> dict[str, int]:
    """Return how many errors were swallowed so far in this process, by type."""
    return {kind: tally.value for kind, tally in _counts.copy().items()}


def on_swallowed(listener: Callable[[BaseException], object]) -> Callable[[], None]:
    """Tell `listener` of each swallowed error; returns the function that takes it off again."""
    _listeners.append(listener)

    def remove() -> None:
        _listeners.remove(listener)

    return remove


def _place(error: BaseException) -> tuple[str, int]:
    """File name and line of the innermost frame of ours."""
    place = ("unknown", 0)
    frame = error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        if "kwai_middleware" in code.co_filename:
            place = (code.co_filename.rpartition("kwai_middleware")[2].lstrip("/\\"), frame.tb_lineno)
        frame = frame.tb_next
    return place


class _NeverRaise:
    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        # Exception only: a cancellation, KeyboardInterrupt or GeneratorExit is never ours to stop.
        if isinstance(exc, Exception):
            report(exc)
            return True
        return False


never_raise: Final = _NeverRaise()
"""`with never_raise:` around everything of ours that the app's call could trip over."""

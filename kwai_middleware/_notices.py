"""What an operator should know: warned of once, counted always. Standard logging, name `kwai_middleware`.

Standard logging and not structlog, so that an app's own structlog pipeline is never re-entered
from here.
"""

from __future__ import annotations

import logging
from typing import Final

from kwai_middleware._tally import Tally

__all__ = ["count", "counts", "warn_once"]

_logger: Final = logging.getLogger("kwai_middleware")
# Without a lock: a finalizer may get here, and a forked child that inherits a held lock would wait for ever.
# Looking up a text or adding it is one step of a dictionary.
_counts: Final[dict[str, Tally]] = {}
_warned: Final[dict[tuple[str, str], object]] = {}
_MOST_WARNINGS: Final = 1000


def count(event: str) -> None:
    """Add one to the counter `event`."""
    tally = _counts.get(event)
    if tally is None:
        tally = _counts.setdefault(event, Tally())
    tally.add()


def counts() -> dict[str, int]:
    """Return all counters."""
    return {event: tally.value for event, tally in _counts.copy().items()}


def warn_once(event: str, about: str, message: str) -> None:
    """Log `message` as a warning the first time `event` happens with `about`.

    Args:
        event: What happened, a fixed word.
        about: What it happened with (a host name, say); bounded, so that a stranger who invents
            values cannot fill the memory.
        message: The whole sentence, with what to do. Never a value that may be a secret.
    """
    mine = object()
    if len(_warned) < _MOST_WARNINGS and _warned.setdefault((event, about), mine) is mine:
        _logger.warning("kwai_middleware: %s", message)

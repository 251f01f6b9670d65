"""What an operator should know: warned of once, counted always. Standard logging, name `kwai_middleware`.

Standard logging and not structlog, so that an app's own structlog pipeline is never re-entered
from here.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

__all__ = ["count", "counts", "warn_once"]

_logger: Final = logging.getLogger("kwai_middleware")
_lock: Final = threading.RLock()
_counts: Final[dict[str, int]] = {}
_warned: Final[set[tuple[str, str]]] = set()
_MOST_WARNINGS: Final = 1000


def count(event: str) -> None:
    """Add one to the counter `event`."""
    with _lock:
        _counts[event] = _counts.get(event, 0) + 1


def counts() -> dict[str, int]:
    """Return all counters."""
    with _lock:
        return dict(_counts)


def warn_once(event: str, about: str, message: str) -> None:
    """Log `message` as a warning the first time `event` happens with `about`.

    Args:
        event: What happened, a fixed word.
        about: What it happened with (a host name, say); bounded, so that a stranger who invents
            values cannot fill the memory.
        message: The whole sentence, with what to do. Never a value that may be a secret.
    """
    with _lock:
        if (event, about) in _warned or len(_warned) >= _MOST_WARNINGS:
            return
        _warned.add((event, about))
    _logger.warning("kwai_middleware: %s", message)

"""Whether records come so often that it is better to gather them than to send each at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

__all__ = ["Traffic"]

_MOST_ALONE: Final = 100
_WITHIN: Final = 0.5
"""Seconds. So many records alone in this time, and traffic is heavy. Not sooner: what is being sent when a process is
killed arrives twice, and that is more when it is sent together."""

_FEW: Final = 20
"""When no more than these have gathered, traffic is light again."""

_GATHERING: Final = 0.5
"""Seconds between two requests with many records, at least."""


_LINGER: Final = 0.15
"""Seconds after a record in which the next one is expected: until then a process keeps the right to ship."""


class Traffic:
    """What has been sent lately, and how.

    Args:
        clock: Monotonic seconds.
        bulk: Whether records may be sent together at all.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, *, bulk: bool = True) -> None:
        self._clock = clock
        self._bulk = bulk
        self._alone: deque[float] = deque(maxlen=_MOST_ALONE)
        self._gathers_until = 0.0
        self.is_heavy = False

    def sent_alone(self, records: int) -> None:
        """Note that records went in a request each."""
        now = self._clock()
        self._alone.extend([now] * records)
        if self._bulk and not self.is_heavy and len(self._alone) == _MOST_ALONE and now - self._alone[0] < _WITHIN:
            self.is_heavy = True
            self._gathers_until = now + _GATHERING

    def sent_together(self, records: int) -> None:
        """Note that records went in one request."""
        self._gathers_until = self._clock() + _GATHERING
        if records <= _FEW:
            self.subsides()

    def subsides(self) -> None:
        """Note that traffic is light: nothing waits, or somebody waits for it all."""
        self.is_heavy = False
        self._alone.clear()

    def lingering(self) -> float:
        """Seconds for which another record is expected after the last one that was sent alone."""
        return max(0.0, self._alone[-1] + _LINGER - self._clock()) if self._alone else 0.0

    def gathering(self) -> float:
        """Seconds for which records are still to be gathered."""
        return max(0.0, self._gathers_until - self._clock()) if self.is_heavy else 0.0

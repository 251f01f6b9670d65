"""Whether somebody waits for what is to be shipped."""

from __future__ import annotations

from time import monotonic
from typing import Final

__all__ = ["Haste"]

_USUAL: Final = 10.0
"""Seconds for which somebody is taken to wait who does not say for how long."""


class Haste:
    """Somebody waits from a call of `begin` on: for a while, or until all is gone. Between two threads, without a lock.

    Moments are counted in attempts to ship.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._since = 0
        self._emptied_at = 0

    def begin(self, moment: int, until: float | None) -> None:
        """Somebody waits, as long as the monotonic clock does not show `until`."""
        self._since = moment
        self._until = max(self._until, monotonic() + _USUAL if until is None else until)

    def emptied(self, moment: int) -> None:
        """Nothing is left to ship."""
        self._emptied_at = moment

    @property
    def is_on(self) -> bool:
        """Whether somebody waits. Not any more when there was an attempt since, and nothing is left."""
        return self._emptied_at <= self._since and monotonic() < self._until

"""When to try again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

__all__ = ["Backoff"]

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 60.0
_LEAD: Final = 0.1
"""Seconds by which the others are ahead at least."""

_FIRST_PAUSE: Final = 60.0
_LONGEST_PAUSE: Final = 3600.0


class Backoff:
    """Waits longer after each failure in a row: from half a second to a minute, half of it by chance.

    The chance keeps the processes of a fleet from coming back all at once.

    Args:
        chance: Gives numbers from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._failures = 0
        self._pauses = 0
        self._until = 0.0
        self._is_probing = False

    @property
    def is_probing(self) -> bool:
        """Whether the last attempt failed: the next one is to find out whether it is worth while to go on."""
        return self._is_probing

    def remaining(self, now: float) -> float:
        """Seconds to wait still; 0 when it is time."""
        return max(0.0, self._until - now)

    def failed(self, now: float, after: float | None = None) -> None:
        """Wait, for `after` seconds at least, as the vendor asked."""
        self._is_probing = True
        self._failures += 1
        delay = self._spread(_FIRST_DELAY, _LONGEST_DELAY, self._failures)
        self._until = now + max(delay, after or 0.0)

    def refused(self, now: float) -> None:
        """Wait long: what is wrong must be put right by a person. A minute, doubling to an hour."""
        self._is_probing = True
        self._pauses += 1
        self._until = now + self._spread(_FIRST_PAUSE, _LONGEST_PAUSE, self._pauses)

    def succeeded(self) -> None:
        """Begin anew."""
        self._is_probing = False
        self._failures = self._pauses = 0
        self._until = 0.0

    def hasten(self) -> None:
        """Try at once, and then again soon; whether the vendor is back is still to be found out."""
        self._failures = 0
        self._until = 0.0

    def rest_of_row(self, attempts: int) -> float:
        """Seconds for one record that fails again and again to stand behind the others.

        Longer than all wait after as many failures: else it would be the first again, and they would wait for it.
        """
        return 2 * self._spread(_FIRST_DELAY, _LONGEST_PAUSE / 2, attempts) + _LEAD

    def _spread(self, first: float, longest: float, times: int) -> float:
        # The exponent is bounded too: 2.0 ** 1100 is an OverflowError, after a night of failures.
        return min(longest, first * 2.0 ** min(times - 1, 30)) * (0.5 + self._chance() / 2)

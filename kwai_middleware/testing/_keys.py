"""The choice among several keys, made repeatable."""

from __future__ import annotations

from contextlib import AbstractContextManager

from kwai_middleware._outbound.draws import seeded

__all__ = ["seeded_keys"]


def seeded_keys(seed: int) -> AbstractContextManager[None]:
    """Choose among several keys in the same way each time, inside of the block.

    Each call that has several keys to choose from takes the next draw of the seed, and keeps it for all attempts at it.
    It holds for the whole process, so that it reaches an app that is tested on other threads; calls that are made at
    the same time take their draws in the order in which they are made. Nothing else changes: ids of calls and records
    are as random as ever.

    Args:
        seed: The same one gives the same choices.

    Example:
        >>> from kwai_middleware.testing import seeded_keys
        >>> with seeded_keys(7):
        ...     pass  # make calls, and see which keys paid
    """
    return seeded(seed)

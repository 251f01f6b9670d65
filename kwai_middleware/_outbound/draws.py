"""What the choice among several keys is drawn from: the call's id, or a seed in tests. And the drawing, by weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Final

from kwai_middleware._caller import Credential

__all__ = ["draw_for", "drawn", "seeded"]

_DIGITS: Final = 13
"""Hexadecimal digits that a float holds exactly."""

_BELOW_ONE: Final = 1 - 2**-53


def draw_for(call_id: str) -> float:
    """Return the draw of a call, at least 0 and below 1: the same one for each attempt at it."""
    if _seeds:
        return _seeds[-1].draw_for(call_id)
    return int(call_id[:_DIGITS], 16) / 16**_DIGITS


def drawn(
    credentials: Sequence[Credential], draw: float, is_out: Callable[[Credential], bool] | None = None
) -> Credential | None:
    """Choose a key by weight, of those that are not out; None when all are.

    A key that is out changes nothing for the draws of the others: only what would have been its own falls to them, by
    their weights.

    Args:
        credentials: What there is to choose from.
        draw: At least 0 and below 1.
        is_out: Whether a key is not to be chosen.
    """
    left = list(credentials)
    while left:
        index, draw = _place_of(draw, [each.weight for each in left])
        if is_out is None or not is_out(left[index]):
            return left[index]
        del left[index]
    return None


def _place_of(draw: float, weights: list[float]) -> tuple[int, float]:
    """Return whose share a draw is in, and where in it: that is a draw itself, which hangs on nothing."""
    if math.isinf(sum(weights)):
        weights = [weight / max(weights) for weight in weights]
    position = draw * sum(weights)
    index = 0
    while index < len(weights) - 1 and position >= weights[index]:
        position -= weights[index]
        index += 1
    return index, min(position / weights[index], _BELOW_ONE)


class _Seeded:
    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - to be repeatable is what it is for
        self._draws: dict[str, float] = {}

    def draw_for(self, call_id: str) -> float:
        draw = self._draws.get(call_id)
        return self._draws.setdefault(call_id, self._random.random()) if draw is None else draw


_seeds: Final[list[_Seeded]] = []


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Draw from a seed inside of the block, in all of the process."""
    ours = _Seeded(seed)
    _seeds.append(ours)
    try:
        yield
    finally:
        _seeds.remove(ours)

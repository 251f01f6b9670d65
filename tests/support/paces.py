"""A look at which threads have a pace, and at the moments at which they would rest."""

from __future__ import annotations

from threading import get_ident

from kwai_middleware import _pace
from kwai_middleware._pace import Pace


def has_pace() -> bool:
    """Say whether this thread has one."""
    return get_ident() in _pace._paces


class Counting(Pace):
    """Counts the moments at which a thread would rest, if it were always time to."""

    def __init__(self) -> None:
        super().__init__()
        self.moments = 0

    @property
    def due(self) -> int:
        return 0

    @due.setter
    def due(self, moment: int) -> None:
        pass

    def rest(self) -> None:
        self.moments += 1

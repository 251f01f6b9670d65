"""One bound, for the whole process, on the memory of calls that are not recorded yet."""

from __future__ import annotations

import os
from typing import Any, Final, NoReturn, Self

from kwai_middleware import _native

__all__ = ["Reservation", "in_use"]


class _Budget:
    """How much is reserved.

    Its lock is between real threads, since the recording thread gives back under gevent too, and
    re-entrant, since a finalizer may run while it is held.
    """

    def __init__(self) -> None:
        self.used = 0
        self.generation = 0
        self.lock: Any = _native.lock()
        self.follows_forks = False

    def follow_forks(self) -> None:
        """From now on a forked child begins with nothing reserved, and a lock that nobody holds."""
        self.follows_forks = True
        os.register_at_fork(after_in_child=self._begin_again)

    def _begin_again(self) -> None:
        # Calls that were under way at the fork are the parent's: what they held there is nothing here.
        self.lock = _native.lock()
        self.used = 0
        self.generation += 1


_budget: Final = _Budget()


class Reservation:
    """What one call holds of the budget. Given back when the call is recorded, dropped or forgotten.

    Args:
        limit: What all calls of this process may hold together, in bytes.
        amount: Bytes to hold from the beginning; nothing is held when the budget is used up.

    Attributes:
        held: Bytes that it holds.
    """

    __slots__ = ("_generation", "_limit", "held")

    def __init__(self, limit: int, amount: int = 0) -> None:
        budget = _budget
        if not budget.follows_forks:
            budget.follow_forks()
        self._limit = limit
        self._generation = budget.generation
        self.held = 0
        if amount:
            with budget.lock:
                if budget.used + amount <= limit:
                    budget.used += amount
                    self.held = amount

    def grow(self, amount: int) -> bool:
        """Hold `amount` bytes more; False, and nothing changes, when the budget is used up."""
        with _budget.lock:
            if self._generation != _budget.generation or _budget.used + amount > self._limit:
                return False
            _budget.used += amount
            self.held += amount
            return True

    def release(self) -> None:
        """Give everything back; may be called again."""
        with _budget.lock:
            if self._generation == _budget.generation:
                _budget.used -= self.held
            self.held = 0

    def __copy__(self) -> Self:
        return self  # a twin would give back as much again

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("what a call holds of this process's memory is nothing anywhere else")

    def __del__(self) -> None:
        if self.held:
            self.release()


def in_use() -> int:
    """Return how many bytes all calls of this process hold together."""
    return _budget.used

"""What an answer of the vendor's means for the rows that were sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kwai_middleware._delivery.spool import Outcome, Row
from kwai_middleware._delivery.verdict import BulkVerdict, Fate, Verdict

__all__ = ["UNFORESEEN", "of_bulk", "of_one"]

UNFORESEEN: Final = Verdict(Fate.FAILED, "internal error")
_ATTEMPTS_IN_FRONT: Final = 3
_ATTEMPTS_TOGETHER: Final = 2


def of_one(row: Row, verdict: Verdict | None, rest: Callable[[int], float]) -> Outcome:
    """Judge a row that was sent alone.

    Args:
        row: It.
        verdict: On it; None when it was not sent after all.
        rest: Seconds for a row to stand behind the others, by how often it failed.
    """
    if verdict is not None and verdict.fate is Fate.DELIVERED:
        return Outcome(row, "delivered")
    if verdict is not None and verdict.fate is Fate.REJECTED:
        return Outcome(row, "rejected", verdict.reason)
    if verdict is None or verdict.fate is not Fate.FAILED or not verdict.is_connected:
        return _kept(row)
    attempts = row.attempts + 1
    # After some attempts a record makes way: if it is the one that the vendor trips over, the others need not wait
    # for it.
    seconds = rest(attempts) if attempts >= _ATTEMPTS_IN_FRONT else 0.0
    return Outcome(row, "returned", attempts=attempts, together=row.together, rest=seconds)


def of_bulk(rows: Sequence[Row], verdict: BulkVerdict) -> list[Outcome]:
    """Judge rows that were sent together.

    None of them is rejected here: one that the vendor does not take is sent alone next, and the
    answer to that decides. A request that is refused, or fails again, is sent in halves next.
    """
    half = max(1, len(rows) // 2)
    match verdict.fate:
        case Fate.DELIVERED:
            return [
                _kept(row, together=1) if index in verdict.refused else Outcome(row, "delivered")
                for index, row in enumerate(rows)
            ]
        case Fate.UNCLEAR:
            return [_kept(row, together=1) for row in rows]
        case Fate.REJECTED:
            return [_kept(row, together=1 if index in verdict.refused else half) for index, row in enumerate(rows)]
        case Fate.FAILED if verdict.is_connected:
            return [_failed(row, half) for row in rows]
        case _:
            return [_kept(row) for row in rows]


def _failed(row: Row, half: int) -> Outcome:
    attempts = row.attempts + 1
    is_again = attempts >= _ATTEMPTS_TOGETHER
    # Alone it begins anew: what they failed of together need not be its fault.
    return Outcome(
        row,
        "returned",
        attempts=0 if is_again and half == 1 else attempts,
        together=half if is_again else row.together,
    )


def _kept(row: Row, together: int | None = None) -> Outcome:
    return Outcome(row, "returned", attempts=row.attempts, together=row.together if together is None else together)

"""How many of the waiting records are sent next, and whether in one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from kwai_middleware._delivery.spool import MOST_TOGETHER
from kwai_middleware._delivery.traffic import Traffic

__all__ = ["Portion", "next_portion"]

_FEW: Final = 10
"""So many waiting records are sent one by one, each at once."""

_MANY: Final = 100
"""More waiting records than this are sent many together; up to it over a few connections, without waiting."""


class Portion(NamedTuple):
    """What is sent next.

    Attributes:
        rows: At most so many records.
        bulk: They go in one request.
        wait: Seconds to wait first; then nothing is sent now.
    """

    rows: int
    bulk: bool = False
    wait: float = 0.0


def next_portion(
    backlog: int,
    traffic: Traffic,
    bulk_wait: Callable[[], float] | None,
    *,
    is_probing: bool,
    is_hasty: bool,
    most_alone: int,
) -> Portion:
    """Say how many records go next.

    Args:
        backlog: Records that wait.
        traffic: What was sent lately.
        bulk_wait: Tells the seconds until the next bulk request may be sent; None where none may be sent at all.
        is_probing: One record is to go ahead, and to find out whether the vendor is back.
        is_hasty: Somebody waits for them.
        most_alone: Records to be sent in a request each.
    """
    if not traffic.is_heavy and (backlog <= _FEW or is_probing):
        return Portion(1)
    wait = bulk_wait() if bulk_wait is not None else 0.0
    if traffic.is_heavy and backlog < MOST_TOGETHER and (gathering := max(wait, traffic.gathering())):
        return Portion(0, wait=gathering)
    if bulk_wait is not None and (traffic.is_heavy or backlog > _MANY) and not wait:
        return Portion(MOST_TOGETHER, bulk=True)
    if backlog <= _MANY or backlog > MOST_TOGETHER or is_hasty or bulk_wait is None:
        return Portion(most_alone)
    return Portion(0, wait=wait)

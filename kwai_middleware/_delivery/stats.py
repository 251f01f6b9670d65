"""What became of the calls so far, for people and for monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """One look at a delivery. `print(stats)` shows a table.

    Two ledgers balance in each of them: of the process, `accepted = spooled + observed + in_memory
    + dropped`; of the spool, `appended = delivered + pending + rejected + evicted + purged`.

    Attributes:
        accepted: Calls that `submit` was called with, in this process.
        spooled: Of these: put into the spool.
        observed: Of these: logged as an event only, since a gateway logs its own calls, or nothing
            may be captured.
        in_memory: Of these: not looked into yet.
        dropped: Of these: lost before they were in the spool.
        dropped_by_reason: The same, each reason with its number.
        appended: Records that ever came into the spool.
        delivered: Of these: accepted by the vendor.
        pending: Of these: waiting.
        rejected: Of these: refused by the vendor for good.
        evicted: Of these: given up for their age.
        purged: Of these: thrown away undelivered; a spool in memory ends so.
        pending_bytes: What the waiting records occupy.
        oldest_pending: Age of the oldest waiting record, in seconds; None when none waits.
        last_success: When a record was delivered last, in seconds since 1970.
        last_error: What went wrong last; None when nothing did since the last success.
        rejections: The records rejected last: id and reason of each, 20 at most.
        restarts: How often each thread died of an error and began anew.
        swallowed: Errors of ours that the app was spared, by type, in this process.
        notices: What an operator should know, counted, in this process.
    """

    accepted: int
    spooled: int
    observed: int
    in_memory: int
    dropped: int
    dropped_by_reason: Mapping[str, int]
    appended: int
    delivered: int
    pending: int
    rejected: int
    evicted: int
    purged: int
    pending_bytes: int
    oldest_pending: float | None
    last_success: float | None
    last_error: str | None
    rejections: tuple[str, ...]
    restarts: Mapping[str, int]
    swallowed: Mapping[str, int]
    notices: Mapping[str, int]

    def __str__(self) -> str:
        rows = {
            "calls": f"{self.accepted} accepted = {self.spooled} spooled + {self.observed} observed"
            f" + {self.in_memory} in memory + {self.dropped} dropped",
            "dropped": _listed(self.dropped_by_reason),
            "records": f"{self.appended} appended = {self.delivered} delivered + {self.pending} pending"
            f" + {self.rejected} rejected + {self.evicted} evicted + {self.purged} purged",
            "waiting": ""
            if self.oldest_pending is None
            else f"{self.pending_bytes / 1024:.1f} KiB, the oldest for {self.oldest_pending:.1f} s",
            "delivered last": ""
            if self.last_success is None
            else f"{datetime.fromtimestamp(self.last_success, UTC):%Y-%m-%d %H:%M:%S} UTC",
            "last error": self.last_error or "",
            "restarts": _listed(self.restarts),
            "swallowed": _listed(self.swallowed),
            "notices": _listed(self.notices),
        }
        return "\n".join(f"{name:<15} {text}" for name, text in rows.items() if text)


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items() if number)

"""What became of the calls so far, for people and for monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """One look at a delivery. `print(stats)` shows a table.

    Two ledgers balance in each of them: of the process, `accepted = spooled + observed + in_memory
    + dropped`; of the spool, `appended = delivered + pending + rejected + evicted + purged`. A spool
    in a file is that of all processes that have it, now and before.

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
        last_success: When a record was delivered last, in seconds since 1970, by this process or
            another one that ships from the same spool.
        last_error: What went wrong last; None when nothing did since the last success.
        kept_in: Where new records wait: the path of a file, or `memory`.
        disk_error: Why they wait in memory although they belong on disk.
        rejections: The records that this process saw rejected last: id and reason of each, 20 at most.
        restarts: How often each thread died of an error and began anew.
        swallowed: Errors of ours that the app was spared, by type, in this process.
        notices: What an operator should know, counted, in this process.
        taken_at: When this look was taken, in seconds since 1970.
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
    kept_in: str
    disk_error: str | None
    rejections: tuple[str, ...]
    restarts: Mapping[str, int]
    swallowed: Mapping[str, int]
    notices: Mapping[str, int]
    taken_at: float

    def __str__(self) -> str:
        return "\n".join([*self._ledgers(), "", *self._lines()])

    def _ledgers(self) -> list[str]:
        calls = {
            "  spooled": self.spooled,
            "+ observed": self.observed,
            "+ in memory": self.in_memory,
            "+ dropped": self.dropped,
        }
        records = {
            "  delivered": self.delivered,
            "+ pending": self.pending,
            "+ rejected": self.rejected,
            "+ evicted": self.evicted,
            "+ purged": self.purged,
        }
        left = _sum("calls of this process", calls, "= accepted", self.accepted, len(records))
        right = _sum("records of the spool", records, "= appended", self.appended, len(records))
        return [f"{one:<{_GAP}}{other}".rstrip() for one, other in zip(left, right, strict=True)]

    def _lines(self) -> list[str]:
        """What there is to say beside the numbers."""
        lines = {
            "dropped": _listed(self.dropped_by_reason),
            "waiting": ""
            if self.oldest_pending is None
            else f"{_size(self.pending_bytes)}, the oldest for {_duration(self.oldest_pending)}",
            "kept in": self.kept_in
            if self.disk_error is None
            else f"{self.kept_in} since the disk fails: {self.disk_error}",
            "delivered last": "" if self.last_success is None else self._moment(self.last_success),
            "last error": self.last_error or "",
            "rejected last": "" if not self.rejections else self.rejections[-1],
            "restarts": _listed(self.restarts),
            "swallowed": _listed(self.swallowed),
            "notices": _listed(self.notices),
        }
        return [f"{name:<16}{text}" for name, text in lines.items() if text]

    def _moment(self, moment: float) -> str:
        age = max(0.0, self.taken_at - moment)
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC, {_duration(age)} ago"


_GAP: Final = 31
_NAME: Final = 13
_NUMBER: Final = 13


def _sum(heading: str, parts: Mapping[str, int], total_name: str, total: int, height: int) -> list[str]:
    """One ledger as a column: a heading, its parts on `height` lines, what they come to."""
    lines = [f"{name:<{_NAME}}{number:>{_NUMBER},}" for name, number in parts.items()]
    lines += [""] * (height - len(lines))
    return [heading, *lines, f"{total_name:<{_NAME}}{total:>{_NUMBER},}"]


_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def _duration(seconds: float) -> str:
    """Say a time in the two largest units that it takes."""
    if seconds < _UNITS[-2][1]:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    first = next(index for index, (_, length) in enumerate(_UNITS) if whole >= length)
    (large, length), (small, part) = _UNITS[first : first + 2]
    return f"{whole // length} {large} {whole % length // part} {small}"


def _size(count: int) -> str:
    return f"{count / 1024:,.1f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:,.1f} MiB"


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in numbers.items() if number)

"""`spool rejected`, `spool requeue` and `spool purge`: single records, and what becomes of them."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import Any, Final

from kwai_middleware._cli.output import (
    complain,
    counted,
    in_bytes,
    moment,
    note,
    print_json,
    print_table,
    say,
    shown,
)
from kwai_middleware._cli.spool_files import SpoolFiles
from kwai_middleware._delivery.disk import existing
from kwai_middleware._delivery.disk.inspection import Amount, Choice, Inspection, Rejected
from kwai_middleware._delivery.disk.intervention import Purged, leave_no_trace
from kwai_middleware._delivery.disk.intervention import purge as purge_records
from kwai_middleware._delivery.disk.intervention import requeue as requeue_records

__all__ = ["purge", "rejected", "requeue"]

_USAGE_ERROR: Final = 2


def rejected(asked: argparse.Namespace, files: SpoolFiles) -> int:
    """Show the rejected records of each file."""
    if asked.entries and not asked.json:
        complain("--entries shows content; it is for --json only")
        return _USAGE_ERROR
    choice = _choice(asked, rejected_only=True)
    found = files.each(
        lambda inspection: (
            inspection.amount(choice).records,
            inspection.rejected(choice, asked.limit, entries=asked.entries),
        )
    )
    if asked.json:
        print_json(
            {
                "files": [
                    {"path": path, "in_all": in_all, "rejected": [_document(files, each) for each in records]}
                    for path, (in_all, records) in found.items()
                ],
                "errors": files.unreadable,
            }
        )
    elif not files.is_empty_told():
        for path, (in_all, records) in found.items():
            _show(path, in_all, records)
    return 0


def requeue(asked: argparse.Namespace, files: SpoolFiles) -> int:
    """Let the rejected records of each file wait again."""
    choice = _choice(asked, rejected_only=True)
    found = files.each(lambda inspection: requeue_records(inspection, choice))
    if asked.json:
        documents = [{"path": path, "requeued": number} for path, number in found.items()]
        print_json({"files": documents, "errors": files.unreadable})
    elif not files.is_empty_told():
        for path, number in found.items():
            say(f"{counted(number, 'record')} of {shown(path)} will be sent again.")
    return 0


def purge(asked: argparse.Namespace, files: SpoolFiles) -> int:
    """Delete records of each file, and ask before; 1 when some are left."""
    if not asked.yes and not sys.stdin.isatty():
        complain("nobody is there to be asked; --yes deletes without a question")
        return _USAGE_ERROR
    purging = _Purging(asked, files)
    found = files.each(purging.purge)
    if asked.json:
        print_json({"files": list(found.values()), "errors": files.unreadable})
    else:
        files.is_empty_told()
    return int(purging.is_something_left)


class _Purging:
    """One run over all files."""

    def __init__(self, asked: argparse.Namespace, files: SpoolFiles) -> None:
        self.is_something_left = False
        self._choice = _choice(asked, rejected_only=asked.rejected)
        self._asks = not asked.yes
        self._is_json = asked.json
        self._max_bytes = files.settings.max_spool_bytes

    def purge(self, inspection: Inspection) -> dict[str, Any]:
        """Delete what was chosen of one file; returns what was done, for JSON."""
        amount = inspection.amount(self._choice)
        purged, trace = Purged(), None
        if amount.records and self._asks and not _is_agreed(amount, inspection.path):
            self.is_something_left = True
            self._say("Nothing was deleted.")
        else:
            purged = purge_records(inspection, self._choice, amount.last)
            # Where a customer is to be forgotten, also what is left of records that were delivered long ago.
            if purged.pending or purged.rejected or self._choice.customer is not None:
                trace = leave_no_trace(inspection, self._max_bytes)
            self._report(inspection.path, purged, trace)
        aside = existing.put_aside_from(inspection.path)
        for path in aside:
            self._say(f"A damaged file that was put aside is left as it is; delete it: {shown(path)}")
        return {
            "path": inspection.path,
            "purged": purged.pending,
            "purged_rejected": purged.rejected,
            "being_sent": purged.left,
            "traces": trace,
            "put_aside": aside,
        }

    def _report(self, path: str, purged: Purged, trace: str | None) -> None:
        say_where = f"of {shown(path)}"
        self._say(
            f"Deleted {counted(purged.pending + purged.rejected, 'record')} {say_where}:"
            f" {purged.pending:,} waited, {purged.rejected:,} had been rejected."
        )
        if purged.left:
            self.is_something_left = True
            self._say(f"{counted(purged.left, 'record')} left, being sent at this moment; run this again.")
        if trace is not None:
            self.is_something_left = True
            self._say(f"Traces of what was deleted may be left in the files: {trace}. Run this again later.")

    def _say(self, text: str) -> None:
        if not self._is_json:
            say(text)


def _is_agreed(amount: Amount, path: str) -> bool:
    whose = counted(amount.customers, "customer")
    if amount.nobodys:
        whose = f"{whose} and {amount.nobodys:,} of nobody" if amount.customers else "nobody"
    note(f"Delete {counted(amount.records, 'record')} of {whose} from {shown(path)}? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _choice(asked: argparse.Namespace, *, rejected_only: bool) -> Choice:
    age: float | None = asked.older_than
    return Choice(
        customer=asked.customer,
        recorded_before=math.inf if age is None else time.time() - age,
        rejected_only=rejected_only,
    )


def _show(path: str, in_all: int, records: list[Rejected]) -> None:
    if not records:
        say(f"{shown(path)}: no rejected record.")
        return
    say(f"{shown(path)}: {counted(in_all, 'rejected record')}" + _the_last(len(records), in_all))
    heads = ("position", "key", "record id", "customer", "recorded", "rejected", "attempts", "size", "reason")
    rows = [
        (
            each.position,
            each.destination.digest[:8],
            shown(each.record_id),
            "-" if each.customer is None else shown(each.customer),
            moment(each.recorded_at),
            moment(each.rejected_at),
            each.attempts,
            in_bytes(each.size),
            shown(each.reason),
        )
        for each in records
    ]
    print_table(heads, rows, indent="  ")
    say()


def _the_last(number: int, in_all: int) -> str:
    return f", the last {number:,} of them" if number < in_all else ""


def _document(files: SpoolFiles, record: Rejected) -> dict[str, Any]:
    document = {
        "position": record.position,
        "record_id": record.record_id,
        "customer": record.customer,
        "destination": files.document_of(record.destination),
        "recorded_at": moment(record.recorded_at),
        "rejected_at": moment(record.rejected_at),
        "attempts": record.attempts,
        "reason": record.reason,
        "bytes": record.size,
    }
    if record.entry is not None:
        document["entry"] = _decoded(record.entry)
    return document


def _decoded(entry: bytes) -> Any:
    try:
        return json.loads(entry)
    except ValueError:
        return entry.decode(errors="backslashreplace")

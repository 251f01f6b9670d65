"""`spool status`: what waits, what became of the rest, and who ships."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any, Final

from kwai_middleware._cli.output import ago, counted, in_bytes, in_time, moment, print_json, print_table, say, shown
from kwai_middleware._cli.spool_files import SpoolFiles
from kwai_middleware._delivery.disk import existing
from kwai_middleware._delivery.disk.inspection import DestinationState, Inspection, Shipping

__all__ = ["run"]

_HEADS: Final = (
    "destination",
    "key",
    "appended",
    "= delivered",
    "+ pending",
    "+ rejected",
    "+ evicted",
    "+ purged",
    "waiting",
    "oldest",
)
_SHIPS: Final = {
    "alive": "ships (alive)",
    "dead": "has shipped and is dead, the next one takes over",
    "late": "has shipped and is silent for too long, the next one takes over",
    "unknown": "ships (in another container, so nobody can tell whether it is alive)",
}


@dataclass(frozen=True, slots=True)
class _FileState:
    version: int
    size: int
    log_size: int
    states: list[DestinationState]


def run(asked: argparse.Namespace, files: SpoolFiles) -> int:
    """Show each file; 1 when something waits for too long or was rejected."""
    found = files.each(_looked_at)
    now = time.time()
    if asked.json:
        documents = [_document(files, path, state) for path, state in found.items()]
        print_json({"files": documents, "errors": files.unreadable})
    elif not files.is_empty_told():
        for path, state in found.items():
            _show(files, path, state, now)
    max_age: float = asked.max_age
    return int(
        any(
            (state.counters.oldest_pending or 0.0) > max_age or state.rejected_kept
            for each in found.values()
            for state in each.states
        )
    )


def _looked_at(inspection: Inspection) -> _FileState:
    # The sizes first: to open a file is to write to its log.
    size, log_size = inspection.sizes()
    return _FileState(inspection.version(), size, log_size, inspection.states())


def _show(files: SpoolFiles, path: str, file: _FileState, now: float) -> None:
    log = f" and {in_bytes(file.log_size)} of log" if file.log_size else ""
    say(f"{shown(path)} (version {file.version}, {in_bytes(file.size)}{log})")
    rows = [_row(files, state) for state in file.states]
    if rows:
        print_table(_HEADS, rows, indent="  ")
    else:
        say("  Nothing was ever recorded in it.")
    for state in file.states:
        say(f"  {state.destination.digest[:8]}: {_in_words(state, now)}")
    for aside in existing.put_aside_from(path):
        say(f"  A damaged file was put aside as {shown(aside)}; what could not be saved is still in there.")
    say()


def _row(files: SpoolFiles, state: DestinationState) -> tuple[str | int, ...]:
    counters = state.counters
    oldest = counters.oldest_pending
    return (
        shown(state.destination.base_url),
        files.name_of(state.destination),
        counters.appended,
        counters.delivered,
        counters.pending,
        counters.rejected,
        counters.evicted,
        counters.purged,
        in_bytes(counters.pending_bytes),
        "nothing waits" if oldest is None else in_time(oldest),
    )


def _in_words(state: DestinationState, now: float) -> str:
    success, error = state.counters.last_success, state.counters.last_error
    words = [
        _who_ships(state.shipping),
        "never delivered anything" if success is None else f"last success {ago(success, now)}",
        "no error since" if error is None else f"last error: {shown(error)}",
    ]
    if state.rejected_kept:
        words.append(f"{counted(state.rejected_kept, 'rejected record')} kept, see 'spool rejected'")
    return "; ".join(words)


def _who_ships(shipping: Shipping | None) -> str:
    if shipping is None:
        return "nobody ships at the moment"
    return f"process {shipping.pid or '?'} {_SHIPS[shipping.state]}"


def _document(files: SpoolFiles, path: str, file: _FileState) -> dict[str, Any]:
    return {
        "path": path,
        "version": file.version,
        "bytes": file.size,
        "log_bytes": file.log_size,
        "put_aside": existing.put_aside_from(path),
        "destinations": [_document_of(files, state) for state in file.states],
    }


def _document_of(files: SpoolFiles, state: DestinationState) -> dict[str, Any]:
    counters, shipping = state.counters, state.shipping
    return {
        **files.document_of(state.destination),
        "appended": counters.appended,
        "delivered": counters.delivered,
        "pending": counters.pending,
        "rejected": counters.rejected,
        "evicted": counters.evicted,
        "purged": counters.purged,
        "rejected_kept": state.rejected_kept,
        "pending_bytes": counters.pending_bytes,
        "oldest_pending": counters.oldest_pending,
        "last_success": None if counters.last_success is None else moment(counters.last_success),
        "last_error": counters.last_error,
        "shipper": None if shipping is None else {"pid": shipping.pid, "state": shipping.state},
    }

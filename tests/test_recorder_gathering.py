"""The recording thread gathers: records of one moment share a commit, and none of them waits for long."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from kwai_middleware._delivery.ledger import Call, Ledger
from kwai_middleware._delivery.memory import MemorySpool
from kwai_middleware._delivery.spool import Record
from tests.support.finished_calls import completed
from tests.support.processes import DEADLINE
from tests.support.recorders import recorder


class Commits(MemorySpool):
    """A spool that tells which records came in together."""

    def __init__(self) -> None:
        super().__init__(max_bytes=1024 * 1024, max_age=3600.0, bulk_spacing=0.0)
        self.seen: list[list[str]] = []

    def append(self, records: Sequence[Record]) -> int:
        self.seen.append([record.record_id for record in records])
        return super().append(records)


class Found(Ledger):
    """Calls, and a signal each time that none is left."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = threading.Semaphore(0)

    def take(self) -> tuple[int, Call] | None:
        taken = super().take()
        if taken is None:
            self.empty.release()
        return taken


def test_the_first_call_is_recorded_at_once_and_the_next_ones_together() -> None:
    """Whoever is alone does not wait; those that follow within the same moment share one commit."""
    calls, spool = Found(), Commits()
    recording = recorder(calls, spool, gathering=3600.0)
    calls.put(completed(record_id="first"))
    thread = threading.Thread(target=recording.run)
    thread.start()
    try:
        assert calls.empty.acquire(timeout=DEADLINE)
        assert [["first"]] == spool.seen
        for number in range(5):
            calls.put(completed(record_id=f"{number}"))
            recording.wake()
        recording.expedite()
        assert calls.empty.acquire(timeout=DEADLINE)
    finally:
        recording.finish()
        thread.join(DEADLINE)
    assert [["first"], ["0", "1", "2", "3", "4"]] == spool.seen


def test_a_record_does_not_wait_for_calls_that_come_without_a_break() -> None:
    """What is encoded is committed after a moment, also when there is always another call in the queue."""
    now = 100.0
    calls, spool = Ledger(), Commits()
    recording = recorder(calls, spool, gathering=0.5, clock=lambda: now)
    for number in range(9):
        calls.put(completed(record_id=f"{number}"))
    recording.step()
    recording.step()
    assert [] == spool.seen
    now += 0.5
    recording.step()
    assert [["0", "1", "2"]] == spool.seen
    recording.step()
    now += 0.25
    recording.step()
    assert 1 == len(spool.seen)

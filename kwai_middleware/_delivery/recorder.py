"""Makes records of finished calls: looks into each, logs it, masks, encodes, and puts it into the spool."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from kwai_middleware import _guard, _notices
from kwai_middleware._caller import Capture
from kwai_middleware._delivery import call_event, ledger, log_entry
from kwai_middleware._delivery import media as media_
from kwai_middleware._delivery.batch import Batch
from kwai_middleware._delivery.capture import bounded
from kwai_middleware._delivery.ledger import Call, Ledger
from kwai_middleware._delivery.masking import ContentMask
from kwai_middleware._delivery.mending import encodable
from kwai_middleware._delivery.spool import Record, Spool
from kwai_middleware._native import Doorbell
from kwai_middleware._pace import LONG_SLICE, SLICE, Pace, breathe
from kwai_middleware._record import CompletedCall
from kwai_middleware._redaction.mask_function import MaskFunction
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Media

__all__ = ["Recorder", "is_logged_by_vendor", "release"]

_LARGE: Final = 256 * 1024
"""Bytes from which a call is large: small ones are recorded in the middle of its recording."""

_MOST_FAILURES: Final = 3

_GATHERING: Final = 0.03
"""Seconds between the records of one moment and the next ones, and the longest that a record waits for others while
calls come without a break. A commit costs the same for one as for several, and so
does it to wake a thread: at 300 calls a second each takes half the time."""


class Recorder:
    """What the recording thread does. One at a time calls `run`, `drain` or `step`.

    Args:
        calls: Where the calls come from, and are accounted for.
        spool: Where the records go.
        is_configured: Whether there is anywhere to send them from there.
        capture: The most that may be recorded of any call.
        media: What stands in a record for media.
        mask: The app's own, over all content that leaves; None for none.
        appended: Called after records that the spool took.
        progressed: Called after each call.
        gathering: Seconds between the records of one moment and the next ones.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        calls: Ledger,
        spool: Spool,
        *,
        is_configured: bool,
        capture: Capture,
        media: Media,
        mask: MaskFunction | None,
        appended: Callable[[], None],
        progressed: Callable[[], None],
        gathering: float = _GATHERING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._spool = spool
        self._is_configured = is_configured
        self._capture: Capture = capture
        self._media: Media = media
        self._mask = None if mask is None else ContentMask(mask)
        self._appended = appended
        self._progressed = progressed
        self._gathering = gathering
        self._batch = Batch(gathering, clock)
        self._has_large_in_hand = False
        self._failures = 0
        self._is_untold = False
        self._later: deque[tuple[int, Call]] = deque()
        self._bell = Doorbell()
        self._impatience = Doorbell()
        self._pace = Pace(self.between)
        self._finishing = False
        self._stopped = False

    def wake(self) -> None:
        """Say that there is a new call. Takes no lock."""
        self._bell.ring()

    def expedite(self) -> None:
        """Gather no further calls before those that wait are recorded: somebody waits for them."""
        self._impatience.ring()
        self._bell.ring()

    def hurry(self) -> None:
        """Take no more rests: the app has come to its end."""
        self._pace.hurry()
        self.expedite()

    def finish(self) -> None:
        """End when no call waits."""
        self._finishing = True
        self.expedite()

    def stop(self) -> None:
        """End after the call in hand."""
        self._stopped = True
        self.expedite()

    def run(self) -> None:
        """Record until told to end, in the background of whatever the app does."""
        with self._pace:
            self._tell_of_records()
            self._commit()
            has_recorded = False
            while not self._stopped:
                if self.step():
                    has_recorded = True
                    breathe()
                elif self._finishing:
                    return
                elif has_recorded:
                    # A first call after a while is recorded at once; those that follow soon are, together.
                    has_recorded = False
                    self._impatience.wait(self._gathering)
                    self._pace.rested()
                else:
                    self._bell.wait(None)
                    self._pace.rested()

    def drain(self, until: float) -> None:
        """Record on this thread until no call waits, or until the monotonic clock shows `until`."""
        self._commit()
        while time.monotonic() < until and self.step():
            pass
        self._commit()

    def step(self) -> bool:
        """Record the call that has waited longest. False when none waits."""
        taken = self._later.popleft() if self._later else self._calls.take()
        if taken is None:
            return False
        self._work_on(*taken)
        if not self._calls.waiting or self._batch.is_due:
            self._commit()
        self._tell_of_overflow()
        return True

    def between(self) -> None:
        """Record one small call, in the middle of a large one. Another large one has to wait for its turn."""
        if not self._has_large_in_hand:
            # Small ones are not worth it, and their records keep their order.
            return
        taken = self._calls.take()
        if taken is None:
            self._commit()
        elif _size_of(taken[1]) > _LARGE:
            self._later.append(taken)
        else:
            self._work_on(*taken)
            if self._batch.is_due:
                self._commit()

    def _work_on(self, number: int, call: Call) -> None:
        made: Record | str = ledger.UNREADABLE
        is_inside, self._has_large_in_hand = self._has_large_in_hand, _size_of(call) > _LARGE
        self._pace.slice = SLICE if self._has_large_in_hand or is_inside else LONG_SLICE
        try:
            made = self._record(call)
        except Exception as error:  # noqa: BLE001 - our bug, or a surprise in the answer: this record is lost, no other
            _guard.report(error)
        finally:
            self._has_large_in_hand = is_inside
            if isinstance(made, Record):
                self._batch.add(number, made)
            else:
                self._calls.finish((number,), made)
            release(call)
            self._progressed()

    def _commit(self) -> None:
        """Put what is encoded into the spool: all that came together in one go, after a surprise one by one.

        What raises is no full spool and no failing disk, but a surprise. It ends the thread, and the
        next one tries again: the records stay here until the spool has answered. One that has failed
        alone too is given up, so that the others get in.
        """
        while self._batch:
            count = len(self._batch) if not self._failures else 1
            if self._failures >= _MOST_FAILURES:
                self._failures = 1
                self._calls.finish(self._batch.remove(count), ledger.SPOOL_FAILED)
                continue
            self._failures += 1
            taken = self._spool.append(self._batch.first(count))
            self._failures = 1 if self._failures > 1 else 0
            self._calls.finish(self._batch.remove(taken), ledger.SPOOLED)
            self._calls.finish(self._batch.remove(count - taken), ledger.SPOOL_FULL)
            self._tell_of_commit(taken, count)
        self._failures = 0

    def give_up(self) -> int:
        """Count what is still in hand as lost; returns how many calls. Only when nothing else runs in here."""
        for _, call in self._later:
            release(call)
        numbers = [*self._batch.remove(len(self._batch)), *(number for number, _ in self._later)]
        self._later.clear()
        self._calls.finish(numbers, ledger.NOT_RECORDED)
        return len(numbers)

    def _tell_of_commit(self, taken: int, count: int) -> None:
        self._is_untold = self._is_untold or taken > 0
        self._progressed()
        self._tell_of_records()
        if taken < count:
            _notices.warn_once(
                "dropped",
                ledger.SPOOL_FULL,
                "the spool is full, since the logs API takes too few records or none; new ones are dropped and counted"
                " (max_spool_bytes, max_memory_bytes)",
            )

    def _tell_of_records(self) -> None:
        """Wake who ships. The one who put them there may have died before it could."""
        if self._is_untold:
            self._appended()
            self._is_untold = False

    def _tell_of_overflow(self) -> None:
        if self._calls.has_overflowed:
            self._calls.has_overflowed = False
            _notices.warn_once(
                "dropped",
                ledger.QUEUE_FULL,
                "calls end faster than they can be recorded; what is too much is dropped and counted"
                " (max_waiting_calls)",
            )

    def _record(self, call: Call) -> Record | str:
        """Return the record to be kept, or what else became of the call."""
        if isinstance(call, CompletedCall):
            completed = call
            secrets: tuple[Secret, ...] = ()
        else:
            completed = call.build()
            secrets = call.secrets
        completed = bounded(completed, self._capture)
        with _guard.never_raise:
            # The app's own structlog pipeline runs in here, and may fail.
            call_event.emit(completed, secrets)
        if is_logged_by_vendor(call) or completed.capture == "none":
            return ledger.OBSERVED
        if not self._is_configured:
            _notices.warn_once(
                "not configured",
                "",
                "no API key for the logs API, so calls are not recorded there;"
                " set KEYWORDSAI_API_KEY or RESPAN_API_KEY, or Settings(api_key=...)",
            )
            return ledger.NOT_CONFIGURED
        if self._media == "digest":
            completed = media_.replaced(completed)
        if self._mask is not None:
            completed = self._mask.masked(completed, secrets)
        caller = completed.caller
        customer = None if caller is None or caller.identifier is None else encodable(caller.identifier)
        # The entry first: an app's own record may hold anything, and that knows what to do about it.
        entry = log_entry.encode(completed, secrets)
        return Record(encodable(str(completed.record_id)), entry, customer)


def _size_of(call: Call) -> int:
    return len(call.messages or b"") if isinstance(call, CompletedCall) else call.size


def is_logged_by_vendor(call: Call) -> bool:
    """Say whether there is nothing to send of a call, since a gateway has seen it."""
    return call.route != "direct" if isinstance(call, CompletedCall) else call.logged_by_vendor


def release(call: Call) -> None:
    """Give back what a call holds in the budget of open calls."""
    with _guard.never_raise:
        if not isinstance(call, CompletedCall):
            call.release()

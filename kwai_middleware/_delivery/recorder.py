"""Makes records of finished calls: looks into each, logs it, masks, encodes, and puts it into the spool."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kwai_middleware import _guard, _notices
from kwai_middleware import _native as native
from kwai_middleware._caller import Capture
from kwai_middleware._delivery import call_event, ledger, log_entry
from kwai_middleware._delivery.capture import bounded
from kwai_middleware._delivery.ledger import Call, Ledger
from kwai_middleware._delivery.masking import ContentMask
from kwai_middleware._delivery.spool import Spool
from kwai_middleware._native import Doorbell
from kwai_middleware._record import CompletedCall
from kwai_middleware._redaction.mask_function import MaskFunction
from kwai_middleware._secret import Secret

__all__ = ["Recorder"]

_BREATH: Final = 50e-6
"""Seconds of real sleep between two calls: a thread that only computes keeps the interpreter for
milliseconds at a time, and the app's event loop waits."""


class Recorder:
    """What the recording thread does. One at a time calls `run`, `drain` or `step`.

    Args:
        calls: Where the calls come from, and are accounted for.
        spool: Where the records go.
        is_configured: Whether there is anywhere to send them from there.
        capture: The most that may be recorded of any call.
        mask: The app's own, over all content that leaves; None for none.
        appended: Called after each record that the spool took.
        progressed: Called after each call.
    """

    def __init__(
        self,
        calls: Ledger,
        spool: Spool,
        *,
        is_configured: bool,
        capture: Capture,
        mask: MaskFunction | None,
        appended: Callable[[], None],
        progressed: Callable[[], None],
    ) -> None:
        self._calls = calls
        self._spool = spool
        self._is_configured = is_configured
        self._capture: Capture = capture
        self._mask = None if mask is None else ContentMask(mask)
        self._appended = appended
        self._progressed = progressed
        self._bell = Doorbell()
        self._in_a_hurry = False
        self._finishing = False
        self._stopped = False

    def wake(self) -> None:
        """Say that there is a new call. Takes no lock."""
        self._bell.ring()

    def hurry(self) -> None:
        """Take no more rests between calls: the app has come to its end."""
        self._in_a_hurry = True
        self._bell.ring()

    def finish(self) -> None:
        """End when no call waits."""
        self._finishing = True
        self._bell.ring()

    def stop(self) -> None:
        """End after the call in hand."""
        self._stopped = True
        self._bell.ring()

    def run(self) -> None:
        """Record until told to end."""
        while not self._stopped:
            if self.step():
                if not self._in_a_hurry:
                    native.sleep(_BREATH)
            elif self._finishing:
                return
            else:
                self._bell.wait(None)

    def drain(self, until: float) -> None:
        """Record on this thread until no call waits, or until the monotonic clock shows `until`."""
        while time.monotonic() < until and self.step():
            pass

    def step(self) -> bool:
        """Record the call that has waited longest. False when none waits."""
        call = self._calls.take()
        if call is None:
            return False
        outcome = ledger.UNREADABLE
        try:
            outcome = self._record(call)
        except Exception as error:  # noqa: BLE001 - our bug, or a surprise in the answer: this record is lost, no other
            _guard.report(error)
        finally:
            self._calls.finish(outcome)
            release(call)
            self._progressed()
        if self._calls.has_overflowed:
            self._calls.has_overflowed = False
            _notices.warn_once(
                "dropped",
                ledger.QUEUE_FULL,
                "calls end faster than they can be recorded; what is too much is dropped and counted"
                " (max_waiting_calls)",
            )
        return True

    def _record(self, call: Call) -> str:
        if isinstance(call, CompletedCall):
            completed, is_logged_by_vendor = call, call.route != "direct"
            secrets: tuple[Secret, ...] = ()
        else:
            completed, is_logged_by_vendor = call.build(), call.logged_by_vendor
            secrets = call.secrets
        completed = bounded(completed, self._capture)
        with _guard.never_raise:
            # The app's own structlog pipeline runs in here, and may fail.
            call_event.emit(completed, secrets)
        if is_logged_by_vendor or completed.capture == "none":
            return ledger.OBSERVED
        if not self._is_configured:
            _notices.warn_once(
                "not configured",
                "",
                "no API key for the logs API, so calls are not recorded there;"
                " set KEYWORDSAI_API_KEY or RESPAN_API_KEY, or Settings(api_key=...)",
            )
            return ledger.NOT_CONFIGURED
        if self._mask is not None:
            completed = self._mask.masked(completed, secrets)
        return self._spooled(completed, secrets)

    def _spooled(self, completed: CompletedCall, secrets: tuple[Secret, ...]) -> str:
        entry = log_entry.encode(completed, secrets)
        if not self._spool.append(completed.record_id, entry):
            _notices.warn_once(
                "dropped",
                ledger.SPOOL_FULL,
                "the spool is full, since the logs API takes too few records or none; new ones are dropped and counted"
                " (max_spool_bytes)",
            )
            return ledger.SPOOL_FULL
        self._appended()
        return ledger.SPOOLED


def release(call: Call) -> None:
    """Give back what a call holds in the budget of open calls."""
    with _guard.never_raise:
        if not isinstance(call, CompletedCall):
            call.release()

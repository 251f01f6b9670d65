"""Empties the spool: one record after the other, at the pace that the vendor bears."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from kwai_middleware import _notices
from kwai_middleware._delivery.backoff import Backoff
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.spool import Row, Spool
from kwai_middleware._delivery.verdict import Fate, Verdict
from kwai_middleware._native import Doorbell

__all__ = ["Shipper"]

_logger: Final = logging.getLogger("kwai_middleware")
_ATTEMPTS_IN_FRONT: Final = 3
_REJECTIONS_KEPT: Final = 20
_SHORTEST_TIMEOUT: Final = 0.05


class Shipper:
    """What the shipping thread does. One at a time calls `run`, `drain` or `step`.

    Args:
        spool: Where the records wait.
        sender: Who posts them.
        request_timeout: Seconds for one request.
        progressed: Called after each attempt.
    """

    def __init__(self, spool: Spool, sender: Sender, request_timeout: float, progressed: Callable[[], None]) -> None:
        self._spool = spool
        self._sender = sender
        self._request_timeout = request_timeout
        self._progressed = progressed
        self._backoff = Backoff()
        self._bell = Doorbell()
        self._in_a_hurry = False
        self._finishing = False
        self._stopped = False
        self._refused_with: str | None = None
        self._attempts = 0
        self._refused_attempt = 0
        self.last_success: float | None = None
        """When a record was delivered last, in seconds since 1970."""
        self.last_error: str | None = None
        """What went wrong last; None when nothing did since the last success."""
        self.rejections: deque[str] = deque(maxlen=_REJECTIONS_KEPT)
        """Ids of the records rejected last, each with the reason."""

    def wake(self) -> None:
        """Say that there is a new record."""
        self._bell.ring()

    def hurry(self) -> int:
        """Try at once, however long it would have waited. Returns the moment, for `is_refused_since`."""
        moment = self._attempts
        self._in_a_hurry = True
        self._bell.ring()
        return moment

    def is_refused_since(self, moment: int) -> bool:
        """Whether the vendor refused this app in an attempt begun after `moment`: waiting on will not help."""
        return self._refused_attempt > moment

    def finish(self) -> None:
        """End when nothing is pending."""
        self._finishing = True
        self._bell.ring()

    def stop(self) -> None:
        """End after the request that is under way."""
        self._stopped = True
        self._bell.ring()

    def run(self) -> None:
        """Ship until told to end."""
        try:
            while not self._stopped:
                delay = self.step(self._request_timeout)
                if delay is None and self._finishing:
                    return
                if delay != 0.0:
                    self._bell.wait(delay)
        finally:
            self._sender.close()

    def drain(self, until: float) -> None:
        """Ship on this thread until nothing is pending, or until the monotonic clock shows `until`."""
        moment = self._attempts
        try:
            while (left := until - time.monotonic()) > _SHORTEST_TIMEOUT and not self.is_refused_since(moment):
                # Connecting, sending and waiting for the answer are timed each for itself.
                delay = self.step(min(self._request_timeout, left / 3))
                if delay is None:
                    return
                if delay:
                    self._bell.wait(min(delay, until - time.monotonic()))
        finally:
            self._sender.close()

    def step(self, timeout: float) -> float | None:
        """Send one record, if one is due.

        Returns:
            Seconds until there may be something to do; 0 when at once, None when nothing is pending.
        """
        if self._in_a_hurry:
            self._in_a_hurry = False
            self._backoff.hasten()
            self._spool.hasten()
        delay = self._backoff.remaining(time.monotonic())
        if delay:
            return delay if self._spool.next_due() is not None else None
        row = self._spool.lease()
        if row is None:
            return self._spool.next_due()
        self._attempts += 1
        verdict = None
        try:
            verdict = self._sender.send(row.entry, timeout)
        finally:
            # Also when something unforeseen is on its way up: a lease that nobody settles is a record lost.
            self._settle(row, verdict or Verdict(Fate.FAILED, "internal error"))
            self._progressed()
        return 0.0

    def _settle(self, row: Row, verdict: Verdict) -> None:
        now = time.monotonic()
        if verdict.fate is not Fate.DELIVERED:
            self.last_error = verdict.reason
        match verdict.fate:
            case Fate.DELIVERED:
                self._spool.delivered(row)
                self._succeeded()
            case Fate.REJECTED:
                self.rejections.append(f"{row.record_id}: {verdict.reason}")
                self._spool.rejected(row)
                self._backoff.succeeded()
                _notices.warn_once(
                    "rejected",
                    verdict.reason[:8],
                    f"the logs API refused a record for good ({verdict.reason[:8]});"
                    " Delivery.stats().rejections tells more",
                )
            case Fate.BUSY:
                self._spool.returned(row, None)
                self._backoff.failed(now, verdict.after)
            case Fate.FAILED:
                # After some attempts a record makes way: if it is the one that the vendor trips over, the
                # others need not wait for it.
                attempts = row.attempts + 1
                rest = self._backoff.rest_of_row(attempts) if attempts >= _ATTEMPTS_IN_FRONT else 0.0
                self._spool.returned(row, rest)
                self._backoff.failed(now, verdict.after)
                _notices.warn_once(
                    "delivery",
                    "failed",
                    f"the logs API cannot be reached or fails ({verdict.reason}); records wait and are sent again",
                )
            case _:
                self._spool.returned(row, None)
                self._backoff.refused(now)
                self._refused(verdict.reason)

    def _succeeded(self) -> None:
        self._backoff.succeeded()
        self.last_success = time.time()
        self.last_error = None
        if self._refused_with is not None:
            self._refused_with = None
            _logger.warning("kwai_middleware: the logs API takes records again")

    def _refused(self, reason: str) -> None:
        self._refused_attempt = self._attempts
        if self._refused_with != reason:
            self._refused_with = reason
            _logger.error(
                "kwai_middleware: the logs API refuses this app (%s); records wait and nothing is sent but a probe now"
                " and then. Check the API key and base_url of the settings.",
                reason,
            )

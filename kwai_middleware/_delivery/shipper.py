"""Empties the spool at the pace that the vendor bears: alone, many together, or over a few connections."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from kwai_middleware._delivery import judgement
from kwai_middleware._delivery.backoff import Backoff
from kwai_middleware._delivery.crew import Crew
from kwai_middleware._delivery.haste import Haste
from kwai_middleware._delivery.portion import next_portion
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.spool import MOST_ALONE, Outcome, Row, Spool
from kwai_middleware._delivery.traffic import Traffic
from kwai_middleware._delivery.verdict import BulkVerdict, Fate, Verdict
from kwai_middleware._delivery.weather import Weather
from kwai_middleware._native import Doorbell
from kwai_middleware._pace import Pace

__all__ = ["Shipper"]

_SHORTEST_TIMEOUT: Final = 0.05
_REJECTIONS_KEPT: Final = 20

_MOST_BYTES: Final = 4 * 1024 * 1024
"""Of the records in hand: they are in memory meanwhile."""

_GLANCE: Final = 0.1
"""Seconds after which to look again whether another process still ships, when somebody waits for it."""

_MOST_IN_VAIN: Final = 3
"""So many attempts in a row that reached nobody, and another process may try: its way may be another."""

_Verdicts = Sequence[Verdict | None]


class Shipper:
    """What the shipping thread does. One at a time calls `run`, `drain` or `step`.

    Args:
        spool: Where the records wait.
        sender: Who posts them.
        crew: Who posts them when there are many, and no bulk request may be sent.
        bulk: Whether bulk requests may be sent at all.
        request_timeout: Seconds for one request.
        progressed: Called after each attempt.
        traffic: What was sent lately.
    """

    def __init__(
        self,
        spool: Spool,
        sender: Sender,
        crew: Crew,
        request_timeout: float,
        progressed: Callable[[], None],
        *,
        bulk: bool = True,
        traffic: Traffic | None = None,
    ) -> None:
        self._spool = spool
        self._sender = sender
        self._crew = crew
        self._bulk = bulk
        self._request_timeout = request_timeout
        self._progressed = progressed
        self._backoff = Backoff()
        self._traffic = Traffic(bulk=bulk) if traffic is None else traffic
        self._haste = Haste()
        self._bell = Doorbell()
        self._in_a_hurry = False
        self._has_begun = False
        self._finishing = False
        self._stopped = False
        self._unsettled: list[Outcome] = []
        self._attempts = 0
        self._refused_attempt = 0
        self._in_vain = 0
        self._pause = 0.0
        self.weather = Weather()
        self.rejections: deque[str] = deque(maxlen=_REJECTIONS_KEPT)
        """Ids of the records rejected last, each with the reason."""

    def wake(self) -> None:
        """Say that there is a new record. Before the first one, `run` leaves the spool alone."""
        self._has_begun = True
        if not self._traffic.is_heavy:
            # Else whoever gathers records looks at a time of its own.
            self._bell.ring()

    def hurry(self, until: float | None = None) -> int:
        """Try at once, however long it would have waited: somebody waits.

        Args:
            until: As long as the monotonic clock does not show this.

        Returns:
            The moment, for `is_refused_since`.
        """
        moment = self._attempts
        self._haste.begin(moment, until)
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
        """End after the requests that are under way."""
        self._stopped = True
        self._crew.halt()
        self._bell.ring()

    def run(self) -> None:
        """Ship until told to end."""
        with Pace():
            try:
                while not self._stopped:
                    # Nobody looks into the file of a process that has nothing to say.
                    delay = self.step(self._request_timeout) if self._has_begun else None
                    if delay is None and self._finishing:
                        return
                    if delay != 0.0:
                        self._bell.wait(self._spool.poll if delay is None else delay)
            finally:
                self._let_go()

    def drain(self, until: float) -> None:
        """Ship on this thread until nothing is pending, or until the monotonic clock shows `until`."""
        moment = self._attempts
        try:
            while (left := until - time.monotonic()) > _SHORTEST_TIMEOUT and not self.is_refused_since(moment):
                # Connecting, sending and waiting for the answer are timed each for itself. Where this thread could not
                # be had, there are none to help: what is begun goes on to its end, and that is one record.
                delay = self.step(min(self._request_timeout, left / 3), most_alone=1, is_last=True)
                if delay is None:
                    return
                if delay:
                    self._bell.wait(min(delay, until - time.monotonic()))
        finally:
            self._let_go()

    def step(self, timeout: float, *, most_alone: int = MOST_ALONE, is_last: bool = False) -> float | None:
        """Send what is due: one request, or a few at once.

        Args:
            timeout: Seconds for each step of a request.
            most_alone: Records to be sent in a request each.
            is_last: None are expected to follow.

        Returns:
            Seconds until there may be something to do; 0 when at once, None when nothing is pending.
        """
        self._tell_spool()
        if self._in_a_hurry:
            self._in_a_hurry = False
            self._backoff.hasten()
            self._spool.hasten()
        backlog = self._spool.backlog()
        is_over = not backlog and not self._traffic.gathering()
        if self._traffic.is_heavy and (is_over or self._haste.is_on or self._backoff.is_probing):
            return self._look_again()
        if not backlog:
            self._haste.emptied(self._attempts)
            if self._traffic.is_heavy:
                return self._traffic.gathering()
            if not (is_last or self._finishing) and (lingering := self._traffic.lingering()):
                return lingering
        delay = self._backoff.remaining(time.monotonic())
        if delay:
            return self._wait(delay) if backlog else None
        return self._send_some(backlog, timeout, most_alone)

    def _look_again(self) -> float:
        """Gather no more records. Nobody has rung for those that came in meanwhile."""
        self._traffic.subsides()
        return 0.0

    def _wait(self, delay: float) -> float:
        """Return when to look again, while there is something to send but not yet."""
        if self._spool.renew():
            # Somebody waits in another process.
            self.hurry()
            return 0.0
        return min(delay, self._spool.poll or delay)

    def _send_some(self, backlog: int, timeout: float, most_alone: int) -> float | None:
        rows, bulk, wait = next_portion(
            backlog,
            self._traffic,
            self._spool.bulk_wait if self._bulk else None,
            is_probing=self._backoff.is_probing,
            is_hasty=self._haste.is_on,
            most_alone=most_alone,
        )
        if wait:
            return self._wait(wait)
        handout = self._spool.lease(rows, _MOST_BYTES, bulk=bulk)
        if not handout.rows:
            if self._traffic.is_heavy:
                return self._look_again()
            if handout.is_elsewhere:
                # Whoever ships may be about to end, and to leave the rest to us.
                wait = handout.wait or 0.0
                return None if self._finishing else min(wait, _GLANCE if self._haste.is_on else wait)
            return handout.wait
        self._attempts += 1
        self._pause = handout.pause
        if bulk and len(handout.rows) > 1 and handout.rows[0].together > 1:
            self._traffic.sent_together(len(handout.rows))
            self._send_together(handout.rows, timeout)
            return 0.0
        self._traffic.sent_alone(len(handout.rows))
        if len(handout.rows) == 1:
            self._send_alone(handout.rows[0], timeout)
        else:
            self._send_each(handout.rows, timeout)
        return 0.0

    def _send_alone(self, row: Row, timeout: float) -> None:
        verdicts: _Verdicts = (judgement.UNFORESEEN,)
        try:
            verdicts = (self._sender.send(row.entry, timeout),)
        finally:
            # Also when something unforeseen is on its way up: a lease that nobody settles is a record held up.
            self._settle_each((row,), verdicts)

    def _send_each(self, rows: Sequence[Row], timeout: float) -> None:
        # What interrupts the crew is the fault of no record.
        verdicts: _Verdicts = (None,) * len(rows)
        try:
            verdicts = self._crew.send_all([row.entry for row in rows], timeout)
        finally:
            self._settle_each(rows, verdicts)

    def _send_together(self, rows: Sequence[Row], timeout: float) -> None:
        verdict = BulkVerdict(Fate.FAILED, judgement.UNFORESEEN.reason)
        try:
            verdict = self._sender.send_bulk([row.entry for row in rows], timeout)
        finally:
            self._settle(judgement.of_bulk(rows, verdict), (verdict,))

    def _settle_each(self, rows: Sequence[Row], verdicts: _Verdicts) -> None:
        outcomes = [
            judgement.of_one(row, verdict, self._backoff.rest_of_row)
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
        self._settle(outcomes, [verdict for verdict in verdicts if verdict is not None])

    def _settle(self, outcomes: Sequence[Outcome], verdicts: Sequence[Verdict | BulkVerdict]) -> None:
        self.rejections.extend(
            f"{outcome.row.record_id}: {outcome.reason}" for outcome in outcomes if outcome.end == "rejected"
        )
        # Kept until the spool has taken them, whatever is raised before that, or by it: a row that nobody settles is
        # held up, and one that is sent again is there twice.
        self._unsettled.extend(outcomes)
        for verdict in verdicts:
            self.weather.observe(verdict)
        now = time.monotonic()
        fates = {verdict.fate for verdict in verdicts}
        # What the vendor answers it would answer to any process.
        self._in_vain = 0 if any(verdict.is_connected for verdict in verdicts) else self._in_vain + 1
        if Fate.REFUSED in fates:
            self._refused_attempt = self._attempts
            self._backoff.refused(now)
        elif Fate.BUSY in fates or Fate.FAILED in fates:
            # Of several processes that take turns in vain none is quicker than the one before it.
            after = self._pause if self._in_vain else 0.0
            self._backoff.failed(now, max(after, *(verdict.after or 0.0 for verdict in verdicts)))
        elif fates:
            self._backoff.succeeded()
        self._tell_spool()
        if (self._in_vain >= _MOST_IN_VAIN or (self._in_vain and self._pause)) and not self._haste.is_on:
            self._spool.make_way(self._backoff.remaining(time.monotonic()))
        self._progressed()

    def _tell_spool(self) -> None:
        if self._unsettled:
            self._spool.settle(self._unsettled, self.weather.last_error)
            self._unsettled = []

    def _let_go(self) -> None:
        self._sender.close()
        self._crew.close()

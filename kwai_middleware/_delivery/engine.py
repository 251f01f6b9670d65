"""The moving parts of one delivery in one process. A forked child builds its own and leaves these alone."""

from __future__ import annotations

import contextvars
import logging
import math
import os
import time
from collections.abc import Callable
from typing import Final, Literal

from kwai_middleware import _guard, _notices
from kwai_middleware._delivery import ledger, live
from kwai_middleware._delivery.crew import Crew
from kwai_middleware._delivery.ledger import Call, Ledger
from kwai_middleware._delivery.masking import is_masking
from kwai_middleware._delivery.recorder import Recorder, is_logged_by_vendor, release
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.shipper import Shipper
from kwai_middleware._delivery.spools import spool_for
from kwai_middleware._delivery.stats import Stats
from kwai_middleware._delivery.worker import Worker
from kwai_middleware._native import Doorbell, is_to_be_forked_by_uwsgi
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings

__all__ = ["Engine"]

_logger: Final = logging.getLogger("kwai_middleware")
_NOWHERE: Final = Secret("none")
_GLANCE: Final = 0.02


class Engine:
    """Queue, recording thread, spool, shipping thread.

    Making one starts nothing, takes no lock of others and logs nothing: it happens inside a fork.

    Args:
        settings: Bounds and destination.
        is_closed: Begin closed, as the child of a process that had closed its own.
    """

    def __init__(self, settings: Settings, *, is_closed: bool = False) -> None:
        self.pid = os.getpid()
        self.exit_timeout = settings.exit_timeout
        self._is_serverless = _is_lambda() if settings.serverless is None else settings.serverless
        self._is_configured = settings.api_key is not None
        self._most_waiting = settings.max_waiting_calls
        self._calls = Ledger()
        self._spool = spool_for(settings)
        self._shipper = Shipper(
            self._spool,
            _sender_for(settings),
            Crew(lambda: _sender_for(settings)),
            settings.request_timeout,
            self._progressed,
            bulk=settings.bulk_per_minute > 0,
        )
        self._recorder = Recorder(
            self._calls,
            self._spool,
            is_configured=self._is_configured,
            capture=settings.capture,
            media=settings.media,
            mask=settings.mask,
            appended=self._appended,
            progressed=self._progressed,
        )
        self._recording = Worker("kwai-recording", self._recorder.run, self._recording_ended)
        self._shipping = Worker("kwai-shipping", self._shipper.run, self._shipping_ended)
        self._watchers: list[Doorbell] = []
        self._is_known = self._is_too_late_for_exit = False
        self.is_closed = is_closed
        self._is_abandoned = False
        self._has_ended = False
        self._has_flushed = False
        self._is_left_open = False
        self._lost = 0

    def submit(self, call: Call) -> bool:
        """Let a call wait for the recording thread. Takes no lock."""
        if self.is_closed:
            return self._refused(call, ledger.CLOSED)
        if is_masking():
            # Masking its record would call the model again, and so on for ever.
            _notices.count("called_by_mask")
            release(call)
            return False
        if self._calls.waiting >= self._most_waiting:
            # The recording thread tells the operator: to log is to take locks and to write.
            self._calls.has_overflowed = True
            return self._refused(call, ledger.QUEUE_FULL)
        self._calls.put(call)
        if not self._is_known:
            self._is_known = True
            self._is_too_late_for_exit = not live.close_at_exit(self)
            if self._is_serverless:
                live.flush_after_requests(self)
        # When there is no thread to be had, the call waits for one, or for the end of the process.
        is_late = self._is_too_late_for_exit
        has_thread = self._recording.running or (not is_late and self._recording.ensure())
        if self._is_configured and not (is_late or self._shipping.running or is_logged_by_vendor(call)):
            # Not only with its record: an interpreter that shuts down gives no thread any more, from Python 3.12 on.
            self._shipping.ensure()
        if not has_thread and (is_late or is_to_be_forked_by_uwsgi()):
            # These end without a word. What is on disk before is shipped by the workers, or by the next process.
            self._recording.borrow(lambda: _bare(self._recorder.drain, math.inf))
        self._recorder.wake()
        if self._has_ended and (stranded := self._calls.withdraw()) is not None:
            # Closed between the first line and the third: nobody else will look at what was put.
            return self._refused(stranded, ledger.CLOSED)
        return True

    def flush(self, deadline: float) -> bool:
        """Wait until everything submitted so far has found its end, or until the monotonic `deadline`."""
        if self._has_ended:
            return self._has_flushed
        position = self._calls.position()
        self._recorder.expedite()
        if not self._wait_for(
            lambda: self._calls.is_finished(position), deadline, self._recording, self._recorder.drain
        ):
            return False
        mark = self._spool.position()
        if self._spool.is_settled(mark):
            return True
        moment = self._shipper.hurry(deadline)
        self._wait_for(
            lambda: self._shipper.is_refused_since(moment) or self._spool.is_settled(mark),
            deadline,
            self._shipping,
            self._shipper.drain,
        )
        return self._spool.is_settled(mark)

    def close(self, deadline: float) -> bool:
        """Flush, end the threads, and count what is lost. True when nothing is."""
        self.is_closed = True
        self._spool.end_by(deadline)
        self._recorder.hurry()
        # Not when the time is over: who is idle then would still take a moment to end.
        self._recorder.finish()
        try:
            self._has_flushed = self.flush(deadline)
        finally:
            self._recorder.stop()
            self._recording.stop()
            self._shipper.stop()
            self._shipping.stop()
            self._wait_for(lambda: not (self._recording.running or self._shipping.running), deadline)
            # From here on, whoever still puts a call takes one out again.
            self._has_ended = True
            self._give_up_the_rest()
        return not self._lost

    def hurry(self) -> None:
        """Begin what `flush` and `close` wait for."""
        self._recorder.expedite()
        self._shipper.hurry()

    def abandon(self) -> None:
        """Nobody can submit any more: deliver what is left, then end. Called by the garbage collector."""
        self._is_abandoned = self.is_closed = True
        if self._recording.running:
            self._recorder.finish()
        else:
            self._shipper.finish()

    def stats(self) -> Stats:
        """Look at both ledgers."""
        account = self._calls.account()
        counters = self._spool.counters()
        last_success, last_error = self._shipper.weather.of_all(counters.last_success, counters.last_error)
        return Stats(
            accepted=account.accepted,
            spooled=account.spooled,
            observed=account.observed,
            in_memory=account.in_memory,
            dropped=sum(account.dropped_by_reason.values()),
            dropped_by_reason=account.dropped_by_reason,
            appended=counters.appended,
            delivered=counters.delivered,
            pending=counters.pending,
            rejected=counters.rejected,
            evicted=counters.evicted,
            purged=counters.purged,
            pending_bytes=counters.pending_bytes,
            oldest_pending=counters.oldest_pending,
            last_success=last_success,
            last_error=last_error,
            kept_in=counters.place,
            disk_error=counters.disk_error,
            rejections=tuple(self._shipper.rejections.copy()),
            restarts={"recording": self._recording.restarts, "shipping": self._shipping.restarts},
            swallowed=_guard.swallowed(),
            notices=_notices.counts(),
            taken_at=time.time(),
        )

    def _refused(self, call: Call, reason: Literal["closed", "queue full"]) -> bool:
        self._calls.refuse(reason)
        release(call)
        return False

    def _give_up_the_rest(self) -> None:
        left: list[int] = []
        self._recording.borrow(lambda: left.append(self._recorder.give_up()))
        unrecorded = sum(left)
        while (taken := self._calls.take()) is not None:
            number, call = taken
            self._calls.finish((number,), ledger.NOT_RECORDED)
            release(call)
            unrecorded += 1
        # What a thread still has in hand comes too late.
        self._lost += self._calls.account().in_memory
        # A thread that is late may hold the disk, or wait for it in vain: nobody else touches it then.
        is_appended_to = self._recording.running
        is_in_use = is_appended_to or self._shipping.running
        undelivered = self._spool.close(is_in_use=is_in_use, is_appended_to=is_appended_to)
        waiting = "some" if is_in_use and self._spool.poll is not None else self._spool.counters().pending
        self._lost += unrecorded + undelivered
        self._shipper.weather.tell_of_the_end(undelivered, unrecorded, waiting, self.exit_timeout)
        if is_in_use:
            self._is_left_open = True
            # They may have ended meanwhile.
            self._close_late()

    def _wait_for(
        self,
        condition: Callable[[], bool],
        deadline: float,
        worker: Worker | None = None,
        drain: Callable[[float], None] | None = None,
    ) -> bool:
        """Wait, and see to it that `worker` is at work on it: on its thread, or else right here."""
        bell = Doorbell()
        self._watchers.append(bell)
        if worker is not None:
            worker.hasten()
        try:
            while not condition():
                wait = deadline - time.monotonic()
                if wait <= 0:
                    return False
                if worker is not None and drain is not None and not worker.ensure():
                    # No thread to be had, as in Python 3.12 and later while the interpreter shuts down.
                    has_worked = worker.borrow(lambda: _bare(drain, deadline))
                    wait = 0.0 if has_worked else min(wait, _GLANCE)
                # Nobody rings for what another process has done.
                bell.wait_in_app(wait if self._spool.poll is None else min(wait, _GLANCE))
            return True
        finally:
            self._watchers.remove(bell)

    def _appended(self) -> None:
        self._shipping.ensure()
        self._shipper.wake()

    def _progressed(self) -> None:
        for watcher in tuple(self._watchers):
            watcher.ring()

    def _close_late(self) -> None:
        """Let go of the disk, if that could not be when all was closed."""
        if self._is_left_open and not (self._recording.running or self._shipping.running):
            self._spool.close()

    def _shipping_ended(self) -> None:
        self._close_late()
        self._progressed()

    def _recording_ended(self) -> None:
        if self._is_abandoned:
            self._shipper.finish()
        if self._has_ended:
            # It died of what it had in hand, or was late.
            self._recorder.give_up()
        self._close_late()
        self._progressed()


def _is_lambda() -> bool:
    """Say whether AWS Lambda runs this, and freezes it after each request."""
    return any(os.environ.get(name) for name in ("AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_RUNTIME_API"))


def _sender_for(settings: Settings) -> Sender:
    return Sender(settings.base_url, settings.api_key or _NOWHERE)


def _bare(drain: Callable[[float], None], deadline: float) -> None:
    """Call `drain` in an empty context, as on a thread: whoever is bound here has nothing to do with those calls."""
    contextvars.Context().run(drain, deadline)

"""Ships what waits in a spool's file, on the calling thread, for an operator who watches."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from kwai_middleware import _native as native
from kwai_middleware._delivery.crew import Crew
from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk.errors import SpoolGone, SpoolUnavailable
from kwai_middleware._delivery.disk.inspection import DestinationState, Inspection, Shipping
from kwai_middleware._delivery.disk.spool import DiskSpool
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.shipper import Shipper
from kwai_middleware._delivery.spool import SpoolCounters
from kwai_middleware._delivery.spools import bounds_for
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings

__all__ = ["Draining", "Ending", "Progress"]

Ending = Literal["nothing waits", "time is over", "told to stop", "refused"]
"""Why a draining ended."""

_SHORTEST_TIMEOUT: Final = 0.05
_GLANCE: Final = 0.25
_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is.

    Attributes:
        delivered: Records since the beginning, whoever delivered them.
        rejected: Records since the beginning.
        evicted: Records given up by an app for their age since the beginning.
        pending: Records that still wait.
        last_error: What went wrong last; None when nothing did since the last success.
        elsewhere: Another process that ships them; None when it is this one.
    """

    delivered: int
    rejected: int
    evicted: int
    pending: int
    last_error: str | None
    elsewhere: Shipping | None


class Draining:
    """Ships the records of one destination from one file; when another process does so, it watches.

    Nothing is given up for its age meanwhile: whoever asks for this wants all of it delivered.

    Args:
        inspection: The file, in which the destination is.
        state: Of the destination, before.
        settings: Of the app.
        api_key: Of the app.
        progressed: Called after each step.
    """

    def __init__(
        self,
        inspection: Inspection,
        state: DestinationState,
        settings: Settings,
        api_key: Secret,
        progressed: Callable[[Progress], None],
    ) -> None:
        self._inspection = inspection
        self._destination: Destination = state.destination
        self._before: SpoolCounters = state.counters
        self._progressed = progressed
        self._request_timeout = settings.request_timeout
        bounds = msgspec.structs.replace(bounds_for(settings), max_pending_age=math.inf, max_rejected_age=math.inf)
        self._spool = DiskSpool(inspection.path, state.destination, bounds)
        self._sender = Sender(settings.base_url, api_key)
        self._crew = Crew(lambda: Sender(settings.base_url, api_key))
        self._shipper = Shipper(
            self._spool,
            self._sender,
            self._crew,
            settings.request_timeout,
            lambda: None,
            bulk=settings.bulk_per_minute > 0,
        )
        self._own_error: str | None = None
        self._has_tried = False

    def run(self, until: float, is_stopped: Callable[[], bool]) -> Ending:
        """Ship until nothing of the destination waits.

        Args:
            until: Or until the monotonic clock shows this.
            is_stopped: Or until this says so; the requests under way end before.

        Raises:
            SpoolUnavailable: The file is gone or damaged.
        """
        moment = self._shipper.hurry(until)
        try:
            while not is_stopped():
                left = until - time.monotonic()
                if left <= 0:
                    return "time is over"
                # Before each step: what is gone or damaged is found out here, where nothing is begun anew.
                self._progressed(self.progress())
                # Connecting, sending and waiting for the answer are timed each for itself.
                delay = self._step(max(_SHORTEST_TIMEOUT, min(self._request_timeout, left / 3)))
                if delay is None:
                    return "nothing waits"
                if self._shipper.is_refused_since(moment):
                    return "refused"
                if delay:
                    native.sleep(min(delay, _GLANCE, left))
            return "told to stop"
        finally:
            self._sender.close()
            self._crew.close()
            self._spool.close()

    def progress(self) -> Progress:
        """Look how far it is.

        Raises:
            SpoolUnavailable: Nobody can tell.
        """
        state = self._inspection.state_of(self._destination)
        if state is None:
            raise SpoolGone(f"{self._inspection.path} holds nothing for this destination any more")
        now, before = state.counters, self._before
        shipping = state.shipping
        is_elsewhere = shipping is not None and (
            shipping.state == "unknown" or (shipping.state == "alive" and shipping.pid != os.getpid())
        )
        return Progress(
            delivered=now.delivered - before.delivered,
            rejected=max(0, now.rejected - before.rejected),
            evicted=now.evicted - before.evicted,
            pending=now.pending,
            # One from before is no news.
            last_error=self._own_error or (now.last_error if self._has_tried else None),
            elsewhere=shipping if is_elsewhere else None,
        )

    def _step(self, timeout: float) -> float | None:
        try:
            delay = self._shipper.step(timeout)
        except SpoolUnavailable as error:
            # It may be busy, or the disk full: what was delivered is settled as soon as it can be.
            self._own_error = str(error)
            return _PAUSE
        finally:
            self._has_tried = True
        self._own_error = None
        return delay

"""Where calls go when a transport is not told: the one place that knows both halves."""

from __future__ import annotations

from typing import Final

from kwai_middleware._delivery.delivery import default_delivery
from kwai_middleware._outbound import records
from kwai_middleware._outbound.exchange import Deliver
from kwai_middleware._settings import Settings

__all__ = ["default_submit"]

# The first record needs it. An import on the recording thread would hold up the app for milliseconds, and a process
# that forks meanwhile would give its child a module that never gets finished.
_IMPORTED_IN_TIME: Final = records


def default_submit(settings: Settings) -> Deliver:
    """Return what takes the finished calls of a transport with these settings."""
    return default_delivery(settings).submit

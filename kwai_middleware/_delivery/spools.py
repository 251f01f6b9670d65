"""Which spool the settings ask for."""

from __future__ import annotations

from typing import Final

from kwai_middleware._delivery.destination import destination_of
from kwai_middleware._delivery.disk import places
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.fallback import FallbackSpool
from kwai_middleware._delivery.memory import MemorySpool
from kwai_middleware._delivery.spool import Spool
from kwai_middleware._settings import Settings
from kwai_middleware._spool_place import AUTO

__all__ = ["bounds_for", "spool_for"]

_MINUTE: Final = 60.0
_MARGIN: Final = 1.05
"""The vendor counts when a request arrives, and some take longer on the way than the one before."""

_LEASE_OF_REQUESTS: Final = 3
_SHORTEST_LEASE: Final = 30.0


def bounds_for(settings: Settings) -> Bounds:
    """Return the bounds of a spool on disk."""
    return Bounds(
        max_bytes=settings.max_spool_bytes,
        max_pending_age=settings.max_pending_age,
        # Connecting, sending and waiting for the answer are timed each for itself.
        lease_time=_SHORTEST_LEASE + _LEASE_OF_REQUESTS * settings.request_timeout,
        bulk_spacing=_bulk_spacing(settings),
    )


def spool_for(settings: Settings) -> Spool:
    """Make the spool that the settings ask for. Opens no file: the first record does."""
    memory = MemorySpool(
        min(settings.max_spool_bytes, settings.max_memory_bytes), settings.max_pending_age, _bulk_spacing(settings)
    )
    if settings.api_key is None:
        # Nothing will ever come in.
        return memory
    destination = destination_of(settings.base_url, settings.api_key)
    path = places.file_for(settings.spool, destination)
    if path is None:
        return memory
    disk = DiskSpool(path, destination, bounds_for(settings))
    return FallbackSpool(disk, memory, is_asked_for=settings.spool != AUTO)


def _bulk_spacing(settings: Settings) -> float:
    return _MARGIN * _MINUTE / settings.bulk_per_minute if settings.bulk_per_minute else 0.0

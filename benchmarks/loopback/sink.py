"""A sink that takes everything: the vendor's request-logs API, OTLP over HTTP, Sentry's envelopes, PostHog's events."""

from __future__ import annotations

from typing import Final

from benchmarks.loopback.wire import Kept, Reply, answer

__all__ = ["accepted", "silent"]

_LOGGED: Final = answer(b'{"message":"log successful"}')
_EXPORTED: Final = answer(b"", "application/x-protobuf")
"""An empty message: all of it was taken."""
_TRACED: Final = answer(b'{"status":"ok"}')
_TAKEN: Final = answer(b'{"status":1}')
_OURS: Final = b'"kwai_record_id":'


def accepted(request: Kept) -> Reply:
    """Say that all of it was taken, as whoever sent it expects."""
    path = request.path
    if path.endswith("/bulk/"):
        # Counted, not parsed: on two cores this process is to be no burden to the one that is measured.
        rows = request.body.count(_OURS)
        return answer(b'{"success_count":%d,"error_count":0,"errors":[]}' % rows)
    if "/request-logs/" in path:
        return _LOGGED
    if path.endswith(("/v1/traces", "/v1/metrics", "/v1/logs")):
        return _EXPORTED
    return _TRACED if path.endswith("/v2/traces") else _TAKEN


def silent(_: Kept) -> None:
    """Never answer."""

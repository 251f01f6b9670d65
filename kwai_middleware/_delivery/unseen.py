"""Sending a record makes no span: tells OpenTelemetry to look away."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import Any, Final

__all__ = ["unseen"]

_KEYS: Final = ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY")
_OLDER_KEY: Final = "suppress_instrumentation"


@contextlib.contextmanager
def unseen() -> Generator[None]:
    """Suppress OpenTelemetry's instrumentation of what this thread does in the block. Imports nothing."""
    context = sys.modules.get("opentelemetry.context")
    token = None if context is None else _suppress(context)
    try:
        yield
    finally:
        if token is not None and context is not None:
            context.detach(token)


def _suppress(context: Any) -> Any:
    try:
        suppressed = context.set_value(_OLDER_KEY, True)
        for name in _KEYS:
            suppressed = context.set_value(getattr(context, name), True, suppressed)
        return context.attach(suppressed)
    except Exception:  # noqa: BLE001 - not the API that we know, or half imported by another thread: the record goes out
        return None

"""What a request pays for what looks at it before the app does."""

from __future__ import annotations

from typing import Final

from benchmarks.inbound.asgi import ASGI
from benchmarks.inbound.wsgi import CHUNKS, FLASK, WSGI
from benchmarks.plan import Suite

__all__ = ["SUITE"]

SUITE: Final = Suite("inbound", "Inbound", (ASGI, WSGI, FLASK, CHUNKS))

"""The slots of requests that an ASGI door is serving right now."""

from __future__ import annotations

from typing import Final

from kwai_middleware._context import Slot

__all__ = ["OPEN_SLOTS"]

OPEN_SLOTS: Final[set[Slot]] = set()
"""By these a WSGI door below, in a bridge, knows that the slot in its context is its own request's.

The context alone does not tell that: it may be inherited from a request that has ended.
"""

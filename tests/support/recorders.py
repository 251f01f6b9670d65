"""A recorder on its own, without an engine around it."""

from __future__ import annotations

from typing import Any

from kwai_middleware._delivery.ledger import Ledger
from kwai_middleware._delivery.recorder import Recorder
from kwai_middleware._delivery.spool import Spool

__all__ = ["recorder"]


def recorder(calls: Ledger, spool: Spool, **arguments: Any) -> Recorder:
    """One that records whatever is in `calls`, and tells nobody; the arguments are those of `Recorder`."""
    usual: dict[str, Any] = {
        "is_configured": True,
        "capture": "full",
        "media": "digest",
        "mask": None,
        "appended": lambda: None,
        "progressed": lambda: None,
    }
    return Recorder(calls, spool, **(usual | arguments))

"""The memory that this process has resident."""

from __future__ import annotations

import gc
import os
from pathlib import Path

__all__ = ["give_back", "resident"]


def resident() -> int:
    """Return how many bytes it has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Give back to the system what is no longer used, which would hide what is needed next."""
    import ctypes  # not in a process that only looks: it would be seen there

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

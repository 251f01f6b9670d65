"""Who holds a lease, and whether that process is still alive."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Final

__all__ = ["is_dead", "new_owner"]

_counter: Final = itertools.count()
_START_TIME: Final = 19
"""Place of the start time in /proc/<pid>/stat, counted behind the command's name."""


def new_owner() -> str:
    """Return a name that no other holder of leases has, in this process or another of this host."""
    pid = os.getpid()
    return f"{_namespace()}:{pid}:{_started(pid)}:{next(_counter)}"


def is_dead(owner: str) -> bool:
    """Whether the process of `owner` has surely ended.

    False when that cannot be known, as for a process in another container: then only time tells.
    """
    namespace, pid, started, _ = owner.split(":")
    if namespace != _namespace():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        # It is somebody else's: alive, but then it is not the one that could open our files.
        pass
    # The number may have been given to another process since.
    return started != _started(int(pid))


def _namespace() -> str:
    """Tell apart containers, which count their processes each for itself."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"


def _started(pid: int) -> str:
    try:
        # The command's name stands in brackets, and may hold brackets and blanks itself.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_START_TIME]
    except (OSError, IndexError):
        return ""

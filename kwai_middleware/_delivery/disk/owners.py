"""Who holds a lease, and whether that process is still alive."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Final

__all__ = ["is_dead", "new_owner"]

_counter: Final = itertools.count()
_STATE: Final = 0
_START_TIME: Final = 19
"""Places in /proc/<pid>/stat, counted behind the command's name."""
_ENDED: Final = ("Z", "X")
"""States of a process that has ended and has not been cleared away, which nobody does in many a container."""


def new_owner(proc: str = "/proc") -> str:
    """Return a name that no other holder of leases has, in this process or another of this host."""
    pid = os.getpid()
    _, started = _looked_up(pid, proc)
    return f"{_namespace(proc)}:{pid}:{started}:{next(_counter)}"


def is_dead(owner: str, proc: str = "/proc") -> bool:
    """Whether the process of `owner` has surely ended.

    False when that cannot be known, as for a process in another container: then only time tells.
    """
    namespace, _, rest = owner.partition(":")
    number, _, rest = rest.partition(":")
    # Another version of this library may name owners in another way.
    if namespace != _namespace(proc) or not (number.isascii() and number.isdigit() and 0 < len(number) < 10):
        return False
    try:
        # Another user's: it has been given the number since, or it is ours and has changed its user.
        with contextlib.suppress(PermissionError):
            os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    state, started = _looked_up(int(number), proc)
    before = rest.partition(":")[0]
    # The number may have been given to another process since.
    return state in _ENDED or bool(before and started and before != started)


def _namespace(proc: str) -> str:
    """Tell apart containers, which count their processes each for itself."""
    try:
        return str(os.stat(f"{proc}/self/ns/pid").st_ino)
    except OSError:
        return "0"


def _looked_up(pid: int, proc: str) -> tuple[str, str]:
    """Return state and start time of a process; blank where the system does not tell."""
    try:
        # The command's name stands in brackets, and may hold brackets, blanks and any bytes itself.
        words = Path(f"{proc}/{pid}/stat").read_bytes().rpartition(b")")[2].decode("ascii").split()
        return words[_STATE], words[_START_TIME]
    except (OSError, IndexError):
        return "", ""

"""Real threads, locks, sleep and wake-ups, also where gevent has replaced those of the standard library.

A patched thread is a greenlet: it would stop the whole server while it encodes a record, and never
run while the server computes.
"""

from __future__ import annotations

import _socket
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Sequence
from typing import Any, Final

__all__ = [
    "Doorbell",
    "connect",
    "connect_to_one",
    "flag",
    "is_patched",
    "is_readable",
    "is_to_be_forked_by_uwsgi",
    "lock",
    "sleep",
    "start_thread",
]

_LONGEST_WAIT: Final = 3600.0
_GLANCE: Final = 0.005
_NOT_OURS: Final = signal.valid_signals() - {
    signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP,
}  # fmt: skip
"""Signals that mean the process, and not what a thread has just done."""


def start_thread(function: Callable[[], None], name: str) -> None:
    """Run `function` on a new daemonic thread, without waiting for it to begin.

    Not `threading.Thread`, whose `start` takes locks and waits: this may be called in a finalizer
    or a signal handler. No signal is handled there: uWSGI's workers end within the handler, on whichever
    thread it was called, and wait for ever when that is one of ours.

    Raises:
        RuntimeError: There is no thread to be had: a limit of the system, or the interpreter is
            shutting down (Python 3.12 and later), or this is a process that uWSGI is about to fork.
    """
    if is_to_be_forked_by_uwsgi():
        raise RuntimeError("a thread here could leave the workers of uWSGI hanging")
    if is_patched():
        # The locks of log handlers are gevent's on our threads too, and may need a hub there. The first hub of a
        # process imports, and two threads that make theirs at the same time then wait for each other for ever.
        sys.modules["gevent"].get_hub()
    start = _original("_thread", "start_new_thread")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # A thread begins with the mask of the one that starts it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_OURS)
        start(_named, (function, name))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def lock() -> Any:
    """Return a re-entrant lock between real threads. To be held for moments only."""
    return _original("_thread", "RLock")()


def flag() -> Any:
    """Return a lock for use as a flag: `acquire(blocking=False)` says whether it was free."""
    return _original("_thread", "allocate_lock")()


def sleep(seconds: float) -> None:
    """Stop this real thread for a while, and let others have the interpreter."""
    _original("time", "sleep")(seconds)


def is_patched() -> bool:
    """Say whether gevent has replaced the threads of this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def is_to_be_forked_by_uwsgi() -> bool:
    """Say whether uWSGI has yet to fork its workers from this process.

    It does so without the lock of the interpreter. A child that was forked while another thread held
    it waits for that thread for ever. And whatever a thread of the master's has in hand at the end is
    lost: the master runs no handlers of the exit.
    """
    server: Any = sys.modules.get("uwsgi")
    try:
        return server is not None and server.worker_id() == 0 and server.masterpid() in (0, os.getpid())
    except AttributeError:
        # Something else of that name.
        return False


def connect(host: str, port: int, until: float) -> socket.socket:
    """Return a real socket, connected to the first address of `host` that answers.

    Args:
        host: Name or address.
        port: Of the host.
        until: When the monotonic clock shows this, no further address is tried. To look up the name
            takes as long as the system lets it.

    Raises:
        OSError: There is none.
    """
    # The C function: tracers replace the one in `socket`, and gevent does too.
    return connect_to_one(_socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM), until)


def connect_to_one(addresses: Sequence[tuple[Any, ...]], until: float) -> socket.socket:
    """Return a real socket, connected to the first of these that answers.

    Each has its part of the time that is left: one that is silent leaves some to the others.

    Args:
        addresses: As `getaddrinfo` tells them.
        until: As for `connect`.

    Raises:
        OSError: None does.
    """
    error = OSError("no address")
    new_socket = _original("socket", "socket")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection: socket.socket = new_socket(family, kind, protocol)
        try:
            connection.settimeout(left / (len(addresses) - number))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as refusal:
            connection.close()
            error = refusal
        else:
            return connection
    raise error


def is_readable(connection: Any) -> bool:
    """Say whether a socket has something to read, or has come to its end."""
    poll = _original("select", "poll")()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


class Doorbell:
    """Wakes one sleeper. `ring` takes no lock, and a ring before the sleep is not lost.

    The sleeper looks for work after each `wait`, never only before it.
    """

    __slots__ = ("_rings",)

    def __init__(self) -> None:
        # The C class: the pure Python one takes locks, and gevent replaces `queue.SimpleQueue`.
        self._rings: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Wake the sleeper, or keep it from falling asleep."""
        if not self._rings.qsize():
            self._rings.put(None)

    def wait(self, seconds: float | None) -> None:
        """Sleep until the bell rings, or for `seconds`. Stops the real thread."""
        try:
            self._rings.get(timeout=_LONGEST_WAIT if seconds is None else min(max(0.0, seconds), _LONGEST_WAIT))
        except Empty:
            return

    def wait_in_app(self, seconds: float) -> None:
        """Like `wait`, for a thread of the app: under gevent other greenlets go on meanwhile."""
        if not is_patched():
            self.wait(seconds)
            return
        until = time.monotonic() + seconds
        while not self._rings.qsize() and time.monotonic() < until:
            time.sleep(_GLANCE)
        self.wait(0)


def _original(module: str, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


def _named(function: Callable[[], None], name: str) -> None:  # pragma: no cover - what measures it begins in here
    # What `threading` does for its own threads: a name for logs and debuggers, and their hooks.
    threading.current_thread().name = name
    if (profile := threading.getprofile()) is not None:
        sys.setprofile(profile)
    if (trace := threading.gettrace()) is not None:
        sys.settrace(trace)
    function()

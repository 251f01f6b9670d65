"""Sends single records over a few connections at once, when there are many of them."""

from __future__ import annotations

import os
from _queue import Empty, SimpleQueue
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from kwai_middleware import _guard
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.verdict import Fate, Verdict
from kwai_middleware._delivery.worker import Worker
from kwai_middleware._pace import Pace

__all__ = ["Crew"]

_LONGEST_IDLE: Final = 10.0
"""Seconds after which a helper without work closes its connection and ends."""

_HARMLESS: Final = (Fate.DELIVERED, Fate.REJECTED)
"""What one record met with and the next one need not."""


class Crew:
    """The thread that calls, and as many helpers as there is work for, each with a connection of its own.

    One thread at a time calls `send_all`. No lock is taken: a helper that does not come, because it
    was left behind in a fork, or there is no thread to be had, is not waited for.

    Args:
        new_sender: Makes a connection.
        most: How many there may be at once.
        idle: Seconds after which a helper without work ends.
    """

    def __init__(self, new_sender: Callable[[], Sender], most: int = 4, idle: float = _LONGEST_IDLE) -> None:
        self._new_sender = new_sender
        self._most = most
        self._idle = idle
        self._pid = os.getpid()
        self._sender: Sender | None = None
        self._helpers: list[_Helper] = []
        self._work: _Work | None = None

    def send_all(self, entries: Sequence[bytes], timeout: float) -> list[Verdict | None]:
        """Post encoded records, each in a request of its own.

        When one meets with anything but a delivery or a refusal of its own, no further one is begun.

        Args:
            entries: The records.
            timeout: Seconds, as for `Sender.send`.

        Returns:
            The verdict on each, in the same order; None where it was not begun.
        """
        self._leave_what_belongs_to_the_parent()
        if self._sender is None:
            self._sender = self._new_sender()
        self._work = work = _Work(entries, timeout)
        for helper in self._called(min(self._most, len(entries)) - 1):
            helper.give(work)
        try:
            work.take_part(self._sender)
        except Exception as error:  # noqa: BLE001 - our own bug: the others' verdicts are not to be lost with it
            _guard.report(error)
        finally:
            # Also when the app's thread is interrupted; then nobody waits for what is under way.
            work.end()
            self._work = None
        work.wait()
        return work.verdicts

    def halt(self) -> None:
        """Begin no further record of those that are being sent. Called from any thread."""
        if (work := self._work) is not None:
            work.end()

    def close(self) -> None:
        """Close all connections, each helper its own when it has done what it is at. `send_all` opens others."""
        self._leave_what_belongs_to_the_parent()
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        for helper in self._helpers:
            helper.dismiss()
        self._helpers = []

    def _called(self, count: int) -> list[_Helper]:
        while len(self._helpers) < count:
            self._helpers.append(_Helper(self._new_sender(), self._idle))
        return self._helpers[: max(count, 0)]

    def _leave_what_belongs_to_the_parent(self) -> None:
        # A forked child shares the parent's connections and has none of its threads.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            helpers, self._helpers = self._helpers, []
            for helper in helpers:
                helper.leave()
            if self._sender is not None:
                self._sender.close()
                self._sender = None


class _Work:
    """Records to be sent, taken by whoever is free. It is safe between threads by what it is made of."""

    def __init__(self, entries: Sequence[bytes], timeout: float) -> None:
        self.verdicts: list[Verdict | None] = [None] * len(entries)
        self._entries = entries
        self._timeout = timeout
        self._pending = deque(range(len(entries)))
        self._joined: list[None] = []
        self._left: SimpleQueue[None] = SimpleQueue()

    def join_in(self, sender: Sender) -> None:
        """Send as long as there is something to send, on the thread of a helper."""
        # Before it takes anything: who finds nothing left to take sees everyone who has something in hand.
        self._joined.append(None)
        try:
            self.take_part(sender)
        finally:
            self._left.put(None)

    def take_part(self, sender: Sender) -> None:
        """Send as long as there is something to send."""
        while (index := self._taken()) is not None:
            verdict = Verdict(Fate.FAILED, "internal error")
            try:
                verdict = sender.send(self._entries[index], self._timeout)
            finally:
                self.verdicts[index] = verdict
                if verdict.fate not in _HARMLESS:
                    self.end()

    def end(self) -> None:
        """Leave what nobody has begun."""
        self._pending.clear()

    def wait(self) -> None:
        """Wait for everyone who has something in hand. Only when nothing is left to take."""
        left = 0
        # Counted anew each time: one that comes late and finds nothing leaves too, and not in another's place.
        while left < len(self._joined):
            self._left.get()
            left += 1
        # A helper that is late may hold on to this for a while.
        self._entries = ()

    def _taken(self) -> int | None:
        try:
            return self._pending.popleft()
        except IndexError:
            return None


class _Helper:
    """One more thread, started when there is work for it and again when it has died."""

    def __init__(self, sender: Sender, idle: float) -> None:
        self._sender = sender
        self._idle = idle
        self._works: SimpleQueue[_Work | None] = SimpleQueue()
        self._worker = Worker("kwai-sending", self._run, lambda: None)

    def give(self, work: _Work) -> None:
        """Ask for help with `work`. It may come too late for it, or not at all."""
        if self._worker.ensure():
            self._works.put(work)

    def dismiss(self) -> None:
        """End the thread."""
        if self._worker.running:
            self._works.put(None)

    def leave(self) -> None:
        """Close this process's end of a connection whose thread is in another process."""
        self._sender.close()

    def _run(self) -> None:
        with Pace():
            try:
                while (work := self._next()) is not None:
                    work.join_in(self._sender)
            finally:
                self._sender.close()

    def _next(self) -> _Work | None:
        try:
            return self._works.get(timeout=self._idle)
        except Empty:
            return None

"""One connection to a spool's file: transactions that take turns, and survive forks."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

from kwai_middleware import _native as native
from kwai_middleware._delivery.disk import files, network, schema
from kwai_middleware._delivery.disk.errors import (
    SpoolBusy,
    SpoolCorrupt,
    SpoolGone,
    SpoolUnavailable,
    errors_translated,
)
from kwai_middleware._delivery.disk.forks import Seat, give_way, let_go_of_inherited
from kwai_middleware._delivery.disk.presence import Presence

__all__ = ["Database"]

_T = TypeVar("_T")

_PATIENCE: Final = 2.0
"""Seconds to wait for a turn. Commits take milliseconds: who has none by then will not get one soon."""

_LAST_PATIENCE: Final = 0.1
"""The same at the end, when the time is over: what others do for milliseconds is no reason to lose a record."""

_GLANCE: Final = 0.0005
"""Seconds between two attempts to get a turn.

All who wait look equally often. SQLite's own waiting sleeps longer the longer it has waited, and newcomers overtake."""

_AWAY: Final = 0.002
"""Seconds that whoever has had a turn stays away while others want one too: so the turns go round."""

_MEMORY: Final = 1.0
"""Seconds for which others want a turn, when one of them was found to have it."""


class Database:
    """Opened by its first use. Threads may share it; one is at it at a time.

    Args:
        path: Absolute.
        steps: The schema, see `schema.STEPS`.
        connection_type: What runs the statements.
    """

    def __init__(
        self,
        path: str,
        steps: Sequence[str] = schema.STEPS,
        connection_type: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self._seats: dict[int, Seat] = {}
        self.path = path
        self._presence = Presence(path)
        self._steps = steps
        self._connection_type = connection_type
        self._is_closed = self._is_distrusted = False
        self._crowded_until = self._away_until = 0.0
        self._latest = math.inf

    @contextlib.contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """Run statements as one: all of them or none, and none of another process in between.

        Raises:
            SpoolUnavailable: It did not work out; nothing has changed.
        """
        if self._away_until and (wait := self._away_until - time.monotonic()) > 0:
            native.sleep(min(wait, _AWAY))
        with self._turn(_begin_writing) as (seat, connection, _):
            try:
                yield connection
                if seat.pid != os.getpid():
                    raise SpoolUnavailable("this process was forked in the middle of a transaction")
                connection.execute("COMMIT")
            except BaseException:
                # A child leaves the transaction to its parent.
                if seat.pid == os.getpid():
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise
        now = time.monotonic()
        self._away_until = now + _AWAY if now < self._crowded_until else 0.0

    def read(self, question: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows that answer a question.

        Raises:
            SpoolUnavailable: Nobody can tell now.
        """
        with self._turn(lambda connection: connection.execute(question, values).fetchall()) as (_, _, rows):
            return rows

    def glance(self, question: str, values: Sequence[Any], patience: float) -> list[tuple[Any, ...]]:
        """Do as `read` does, for whoever must not be held up, neither by processes nor by threads.

        Raises:
            SpoolUnavailable: Nobody can tell within so many seconds.
        """
        until = time.monotonic() + patience
        while True:
            seat = self._seat()
            with self._alone(seat, until), self._bad_connections_closed(seat):
                begun = self._begun(seat, lambda connection: connection.execute(question, values).fetchall(), until)
            if begun is not None:
                return begun[1]
            native.sleep(_GLANCE)

    def tidy(self, statement: str, *, patience: float = _PATIENCE) -> None:
        """Run a statement that stands for itself and is not important: when it does not work out, nothing is said."""
        with contextlib.suppress(SpoolUnavailable), self._turn(lambda _: None, patience) as (_, connection, _):
            # To its end: `execute` takes only the first step of one that goes page by page.
            connection.executescript(statement)

    @property
    def seen(self) -> files.Identity | None:
        """The file that was opened last, or that should have been."""
        return self._presence.file

    @property
    def is_open(self) -> bool:
        """Whether this process has it open at the moment."""
        seat = self._seats.get(os.getpid())
        return seat is not None and seat.connection is not None and not self._is_distrusted

    def end_by(self, until: float) -> None:
        """Wait for a turn until the monotonic clock shows this; later on, only for a moment each time."""
        self._latest = until

    def close(self) -> None:
        """Close it for good."""
        self._is_closed = True
        self.detach().leave()

    def distrust(self) -> None:
        """Open it anew with its next use: what was opened while the disk failed may go on failing. Waits for nobody."""
        self._is_distrusted = True

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Keep other threads away from it."""
        with self._seat().lock:
            yield

    def detach(self) -> Seat:
        """Give away the connection, open or not; the next use opens what is at the path by then.

        Whoever gets it uses it under its lock, and calls `leave` in the end.
        """
        seat = self._seat()
        with seat.lock:
            self._seats.pop(os.getpid(), None)
        return seat

    def __del__(self) -> None:
        # Missing when the constructor failed.
        if (seat := getattr(self, "_seats", {}).get(os.getpid())) is not None:
            seat.leave()

    @contextlib.contextmanager
    def _turn(
        self, begin: Callable[[sqlite3.Connection], _T], patience: float = _PATIENCE
    ) -> Generator[tuple[Seat, sqlite3.Connection, _T]]:
        """Begin something as soon as no other process prevents it, and go on with it alone."""
        until = self._patient_until(patience)
        while True:
            give_way()
            seat = self._seat()
            with self._alone(seat, until), self._bad_connections_closed(seat):
                begun = self._begun(seat, begin, until)
                if begun is not None:
                    yield seat, *begun
                    return
            # Not under the lock: a fork waits for it.
            native.sleep(_GLANCE)

    @contextlib.contextmanager
    def _alone(self, seat: Seat, until: float) -> Generator[None]:
        """Wait until no other thread is at it. One that a disk has swallowed must not swallow the others."""
        if not seat.lock.acquire(timeout=max(0.0, until - time.monotonic())):
            raise SpoolBusy(f"another thread is at {self.path}")
        try:
            yield
        finally:
            seat.lock.release()

    def _patient_until(self, patience: float) -> float:
        now = time.monotonic()
        return max(min(now + patience, self._latest), now + min(patience, _LAST_PATIENCE))

    def _begun(
        self, seat: Seat, begin: Callable[[sqlite3.Connection], _T], until: float
    ) -> tuple[sqlite3.Connection, _T] | None:
        if self._seats.get(os.getpid()) is not seat:
            # Somebody else has detached it while this thread waited for its lock.
            return None
        try:
            connection = self._usable(seat)
            with errors_translated():
                return connection, begin(connection)
        except SpoolBusy:
            now = time.monotonic()
            self._crowded_until = now + _MEMORY
            if now >= until:
                raise
            return None

    @contextlib.contextmanager
    def _bad_connections_closed(self, seat: Seat) -> Generator[None]:
        try:
            with errors_translated():
                yield
        except (SpoolBusy, SpoolCorrupt, SpoolGone):
            # Nothing is wrong with the first, and what the others still know may be saved.
            raise
        except SpoolUnavailable:
            # A connection that met a disk that was full or could only be read might stay like that.
            if seat.pid == os.getpid():
                seat.close()
            raise

    def _seat(self) -> Seat:
        pid = os.getpid()
        seat = self._seats.get(pid)
        if seat is None:
            # Also in a child of a fork that told nobody. Of several threads that get here, all get the same one.
            seat = self._seats.setdefault(pid, Seat())
            seat.take()
        return seat

    def _usable(self, seat: Seat) -> sqlite3.Connection:
        if self._is_closed:
            raise SpoolUnavailable(f"{self.path} has been closed")
        if self._is_distrusted:
            self._is_distrusted = False
            seat.close()
        if seat.connection is None:
            return self._opened(seat)
        if not self._presence.is_unchanged():
            raise SpoolGone(f"{self.path} was deleted or replaced while it was in use")
        return seat.connection

    def _opened(self, seat: Seat) -> sqlite3.Connection:
        let_go_of_inherited()
        files.folder_for(self.path)
        kind = network.on_network(os.path.dirname(self.path))
        if kind is not None:
            raise SpoolUnavailable(f"{self.path} lies on a network's disk ({kind})")
        with files.exclusively(self.path, patience=0.0) as lock:
            files.checked(self.path)
            is_another = files.identity(self.path) != self.seen
            files.remove_leftovers(self.path, self._presence.beside if is_another else ())
            files.made(self.path)
            self._presence.expect()
            try:
                with errors_translated():
                    connection = self._connected()
                    seat.keep(connection, self.path, self.seen)
                    self._set_up(connection)
            except BaseException as error:
                seat.close()
                if isinstance(error, SpoolCorrupt) and not files.is_ours(lock):
                    raise SpoolUnavailable(f"{self.path} is no spool; it belongs to somebody else") from None
                raise
            files.make_ours(lock)
        return connection

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file://{quote(os.fsencode(self.path))}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            factory=self._connection_type,
        )

    def _set_up(self, connection: sqlite3.Connection) -> None:
        schema.prepare(connection)
        schema.upgrade(connection, self._steps)
        # In a folder where others may add files, somebody can have been quicker than SQLite with those beside it.
        files.checked(self.path)
        if not self._presence.complete():
            raise SpoolUnavailable(f"{self.path} was replaced while it was opened")


def _begin_writing(connection: sqlite3.Connection) -> None:
    # Closed here, under the lock: what is left of a cursor goes into SQLite once more when it is thrown away.
    connection.execute("BEGIN IMMEDIATE").close()

"""The spool on disk: shared, claimed by one shipper at a time, bounded, aged out, without a trace of what is gone."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kwai_middleware._delivery.disk import ageing, claims, files, renewal, tables
from kwai_middleware._delivery.disk import spool as spool_module
from kwai_middleware._delivery.disk.bounds import WEEK
from kwai_middleware._delivery.disk.database import Database
from kwai_middleware._delivery.disk.errors import SpoolBusy, SpoolCorrupt, SpoolGone, SpoolUnavailable
from kwai_middleware._delivery.disk.large_entries import WINDOW, LargeEntries
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.spool import MOST_TOGETHER, Handout, Outcome, Record, SpoolCounters
from tests.support.paces import Counting
from tests.support.processes import DEADLINE
from tests.support.spooling import (
    ELSEWHERE,
    HERE,
    LARGE,
    Host,
    asked,
    balanced,
    leased,
    ledger,
    names,
    record,
    records,
    settle,
    without_a_trace,
)

DAY = 24 * 3600.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


class Moody(sqlite3.Connection):
    """A connection to a disk that is full for as long as the test says so."""

    is_full = False

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if Moody.is_full and statement.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT")):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().execute(statement, *values)

    def executemany(self, statement: str, values: Any) -> sqlite3.Cursor:
        if Moody.is_full:
            self.execute(statement)
        return super().executemany(statement, values)


@pytest.fixture
def moody() -> Iterator[type[Moody]]:
    yield Moody
    Moody.is_full = False


# One file, several processes.


def test_what_one_appends_another_ships(host: Host) -> None:
    """The rows of all processes wait in one line, with one ledger."""
    one, other = host.spool(), host.spool()
    one.append(records(0))
    other.append(records(1))
    one.append(records(2))
    rows = leased(other, 9)
    assert ["0", "1", "2"] == names(rows)
    settle(other, rows)
    assert SpoolCounters(appended=3, delivered=3) == ledger(one) == ledger(other)


def test_only_one_ships_at_a_time(host: Host) -> None:
    """While one has the claim the others are told so, whatever waits; when all is delivered, the next may have it."""
    one, other = host.spool(), host.spool()
    one.append(records(0, 1))
    rows = leased(one)
    for spool in (other, host.spool()):
        handout = spool.lease(9, LARGE, bulk=False)
        assert ((), 1.0, True) == (handout.rows, handout.wait, handout.is_elsewhere)
    settle(one, rows)
    assert other.lease(9, LARGE, bulk=False).is_elsewhere
    settle(one, leased(one))
    handout = one.lease(9, LARGE, bulk=False)
    assert (None, False) == (handout.wait, handout.is_elsewhere)
    other.append(records(2))
    assert ["2"] == names(leased(other))
    assert one.lease(9, LARGE, bulk=False).is_elsewhere


def test_another_may_be_faster(host: Host) -> None:
    """Who finds the claim free looks again when nobody can come in between any more."""
    other = host.spool()

    class Slow(sqlite3.Connection):
        is_late = False

        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if Slow.is_late and statement == "BEGIN IMMEDIATE":
                Slow.is_late = False
                assert ["0"] == names(leased(other))
            return super().execute(statement, *values)

    one = host.spool(connection_type=Slow)
    one.append(records(0, 1))
    Slow.is_late = True
    assert one.lease(9, LARGE, bulk=False).is_elsewhere


def test_a_file_may_be_emptied_meanwhile(host: Host) -> None:
    """Who finds that something waits looks again, and finds that nobody knows its destination any more."""

    class Slow(sqlite3.Connection):
        is_late = False

        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if Slow.is_late and statement == "BEGIN IMMEDIATE":
                Slow.is_late = False
                connection = sqlite3.connect(host.path)
                connection.executescript("DELETE FROM records; DELETE FROM destinations;")
                connection.close()
            return super().execute(statement, *values)

    spool = host.spool(connection_type=Slow)
    spool.append(records(0, 1))
    settle(spool, leased(spool))
    Slow.is_late = True
    assert Handout() == spool.lease(9, LARGE, bulk=False)
    spool.append(records(2))
    assert ["2"] == names(leased(spool))


def test_a_claim_is_not_written_anew_for_each_record(host: Host) -> None:
    """It ends with the leases made under it, never before, though it is only extended every few seconds."""
    one, other = host.spool(lease_time=60.0), host.spool(lease_time=60.0)
    one.append(records(0, 1, 2))
    untils = set()
    for _ in range(2):
        leased(one)
        untils |= set(asked(host.path, "SELECT until FROM leases UNION SELECT shipper_until FROM destinations"))
        host.passes(3.0)
    assert 1 == len(untils)
    host.passes(0.1)
    leased(one)
    (first, last) = asked(host.path, "SELECT min(until), max(until) FROM leases")[0]
    assert (last,) == asked(host.path, "SELECT shipper_until FROM destinations")[0]
    assert 6.1 == round(last - first, 3)
    host.passes(59.9)
    assert other.lease(9, LARGE, bulk=False).is_elsewhere
    host.passes(0.1)
    assert ["0", "1", "2"] == names(leased(other, 9))


def test_a_record_that_was_purged_while_it_was_sent_is_not_counted_as_delivered(host: Host) -> None:
    """The ledger goes by what is there."""
    spool = host.spool()
    spool.append(records(0, 1))
    rows = leased(spool)
    connection = sqlite3.connect(host.path, isolation_level=None)
    connection.execute("DELETE FROM records WHERE record_id = '0'")
    connection.execute("UPDATE destinations SET pending = 1, pending_bytes = 5, purged = 1")
    connection.close()
    settle(spool, rows)
    assert SpoolCounters(appended=2, pending=1, purged=1, pending_bytes=5, oldest_pending=0.0) == ledger(spool)


def test_a_claim_that_is_not_renewed_ends(host: Host) -> None:
    """Whose process is not known to be dead has until the deadline; then its rows are another's."""
    one, other = host.spool(lease_time=60.0), host.spool(lease_time=60.0)
    one.append(records(0, 1))
    late = leased(one)
    host.passes(59.9)
    assert other.lease(9, LARGE, bulk=False).is_elsewhere
    host.passes(0.1)
    rows = leased(other, 9)
    assert ["0", "1"] == names(rows)
    # The first wakes up late: nothing that it says counts any more, and it gets nothing.
    for end in ("delivered", "rejected", "returned"):
        settle(one, late, end)  # type: ignore[arg-type]  # each of the three
    assert not one.renew()
    assert one.lease(9, LARGE, bulk=False).is_elsewhere
    assert SpoolCounters(appended=2, pending=2, pending_bytes=10, oldest_pending=60.0) == ledger(one)
    settle(other, rows)
    assert 2 == one.counters().delivered


def test_a_claim_is_renewed_while_nothing_is_sent(host: Host) -> None:
    """Whoever waits for the vendor keeps the claim, as long as it says so."""
    one, other = host.spool(lease_time=60.0), host.spool(lease_time=60.0)
    assert not one.renew()
    one.append(records(0))
    settle(one, leased(one), "returned")
    for _ in range(10):
        host.passes(29.0)
        one.renew()
        assert other.lease(9, LARGE, bulk=False).is_elsewhere
    host.passes(60.0)
    assert ["0"] == names(leased(other))


def test_a_late_renewal_takes_nothing_from_the_next_owner(host: Host) -> None:
    """A process that stalls between its look at the claim and the renewal finds that it is too late."""
    one, other = host.spool(lease_time=60.0), host.spool(lease_time=60.0)
    one.append(records(0))
    leased(one)
    connection = sqlite3.connect(host.path, isolation_level=None)
    host.passes(61.0)
    rows = leased(other)
    ((owner,),) = connection.execute("SELECT shipper FROM destinations").fetchall()
    claims.extend(connection, 1, "somebody who was the owner before", host.ticks(), host.ticks() + 1000)
    assert [(owner, 60.0)] == connection.execute(
        "SELECT shipper, shipper_until - shipper_since FROM destinations"
    ).fetchall()
    connection.close()
    settle(other, rows)
    assert 1 == other.counters().delivered


def test_a_lease_that_has_run_out_but_that_nobody_took_still_counts(host: Host) -> None:
    """What was delivered late was delivered; the deadline only says from when on others may take it."""
    spool = host.spool(lease_time=60.0)
    spool.append(records(0))
    rows = leased(spool)
    host.passes(100.0)
    settle(spool, rows)
    assert 1 == spool.counters().delivered


def test_a_lease_that_has_run_out_is_given_again_to_the_same_process(host: Host) -> None:
    """Rows whose outcome was never said are sent again, and the old lease counts no more."""
    spool = host.spool(lease_time=60.0)
    spool.append(records(0))
    old = leased(spool)
    assert [] == leased(spool)
    host.passes(60.0)
    new = leased(spool)
    assert ["0"] == names(new)
    settle(spool, old)
    assert 0 == spool.counters().delivered
    settle(spool, new)
    assert 1 == spool.counters().delivered


def test_who_closes_lets_the_next_one_ship_at_once(host: Host) -> None:
    """Without anything on lease the claim is free; with a row under way it ends by its deadline."""
    one, other, third = (host.spool(lease_time=60.0) for _ in range(3))
    one.append(records(0, 1))
    settle(one, leased(one), "returned")
    assert 0 == one.close()
    assert ["0"] == names(leased(other))
    other.close()
    assert third.lease(1, LARGE, bulk=False).is_elsewhere
    host.passes(60.0)
    assert ["0"] == names(leased(third))
    with pytest.raises(SpoolUnavailable, match="closed"):
        other.append(records(2))
    assert 2 == other.counters().pending


def test_who_makes_way_lets_another_one_ship_after_a_pause(host: Host) -> None:
    """All keep to the pause, the one that has made way a little longer; the next one learns how long it was."""
    one, other = host.spool(), host.spool()
    one.append(records(0, 1))
    settle(one, leased(one), "returned")
    one.make_way(4.0)
    assert [(), 1.0, False] == waits(one) == waits(other)
    host.passes(3.5)
    assert [(), 0.5, False] == waits(other)
    host.passes(0.5)
    assert [(), 1.0, False] == waits(one)
    handout = other.lease(1, LARGE, bulk=False)
    assert (["0"], 4.0) == (names(handout.rows), handout.pause)
    assert 0.0 == other.lease(1, LARGE, bulk=False).pause
    assert [(), 1.0, True] == waits(one)


def test_who_makes_way_for_nobody_goes_on(host: Host) -> None:
    """When no other process wants to ship, the one that did takes its turn again."""
    spool = host.spool()
    spool.append(records(0))
    settle(spool, leased(spool), "returned")
    spool.make_way(4.0)
    host.passes(4.0 + 1.9)
    assert () == spool.lease(1, LARGE, bulk=False).rows
    host.passes(0.1)
    assert ["0"] == names(leased(spool))


def test_who_does_not_ship_makes_no_way(host: Host) -> None:
    """Neither another process's claim ends by it, nor one's own while something is under way."""
    one, other = host.spool(), host.spool()
    one.append(records(0, 1))
    rows = leased(one)
    one.make_way(4.0)
    other.make_way(4.0)
    assert [(), 1.0, True] == waits(other)
    settle(one, rows, "returned")
    assert ["0"] == names(leased(one))


@pytest.mark.parametrize("who", [0, 1])
def test_haste_ends_a_pause(host: Host, who: int) -> None:
    """Somebody waits: whoever asks may ship at once, also the process that has made way."""
    spools = [host.spool(), host.spool()]
    spools[0].append(records(0))
    settle(spools[0], leased(spools[0]), "returned")
    spools[0].make_way(4.0)
    spools[who].hasten()
    assert ["0"] == names(leased(spools[who]))


def test_a_pause_ends_with_the_clock_that_measured_it(host: Host) -> None:
    """After the machine was started anew nobody waits for it."""
    one, other = host.spool(), host.spool()
    one.append(records(0))
    settle(one, leased(one), "returned")
    one.make_way(4.0)
    host.ticks.now = 10.0
    assert ["0"] == names(leased(other))


def waits(spool: DiskSpool) -> list[Any]:
    """What a process is told that asks for a row."""
    handout = spool.lease(1, LARGE, bulk=False)
    return [handout.rows, handout.wait, handout.is_elsewhere]


def test_haste_reaches_whoever_ships(host: Host) -> None:
    """One process waits for the vendor, another one flushes: the first learns of it with its next look, once."""
    one, other = host.spool(), host.spool()
    one.append(records(0))
    one.settle([Outcome(row, "returned", rest=3600.0) for row in leased(one)])
    assert not one.renew()
    other.hasten()
    assert one.renew()
    assert not one.renew()
    assert ["0"] == names(leased(one))
    assert not other.renew()


def test_haste_between_the_lease_and_the_first_look_is_not_missed(host: Host) -> None:
    """Also who never looked before notices."""
    one, other = host.spool(), host.spool()
    one.append(records(0))
    settle(one, leased(one), "returned")
    other.hasten()
    assert one.renew()


def test_bulk_requests_keep_their_distance_whoever_sends_them(host: Host) -> None:
    """The vendor counts those of all processes."""
    one, other = host.spool(bulk_spacing=2.0), host.spool(bulk_spacing=2.0)
    one.append(records(*range(4)))
    settle(one, leased(one, 2, bulk=True))
    assert 2.0 == other.bulk_wait()
    host.passes(2.0)
    assert 0.0 == other.bulk_wait()


# Clocks.


def test_after_the_machine_was_started_anew_nothing_waits_for_the_old_clock(host: Host) -> None:
    """The monotonic clock begins again near 0: claims, rests and the distance of bulk requests are of another time."""
    one = host.spool(lease_time=60.0, bulk_spacing=2.0)
    one.append(records(*range(4)))
    rows = leased(one, 2, bulk=True)
    one.settle([Outcome(rows[0], "returned", rest=3600.0)])
    host.ticks.now = 10.0
    other = host.spool(lease_time=60.0, bulk_spacing=2.0)
    assert 0.0 == other.bulk_wait()
    assert ["0", "1", "2", "3"] == names(leased(other, 9))


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0, -400 * DAY])
def test_a_clock_that_is_set_loses_nothing(host: Host, seconds: float) -> None:
    """Leases do not follow it, an hour more or less is no age, and no age is negative."""
    spool = host.spool()
    spool.append(records(0))
    rows = leased(spool)
    host.clock.now += seconds
    assert [] == leased(spool)
    spool.append(records(1))
    settle(spool, rows)
    host.passes(10.0)
    assert ["1"] == names(leased(spool))
    age = spool.counters().oldest_pending
    assert age is not None
    assert 0.0 <= age <= 10.0
    assert 0 == spool.counters().evicted


def test_what_was_appended_while_the_clock_was_ahead_grows_old_all_the_same(host: Host) -> None:
    """A record from next year is young when the clock is right again, and then as old as any."""
    spool = host.spool()
    host.clock.now += 365 * DAY
    spool.append(records(0))
    host.clock.now -= 365 * DAY
    host.passes(10.0)
    settle(spool, leased(spool), "returned")
    host.passes(WEEK - 1)
    settle(spool, leased(spool), "returned")
    assert WEEK - 1 == spool.counters().oldest_pending
    host.passes(1.0 + 5.0)
    assert [] == leased(spool)
    assert 1 == spool.counters().evicted


# Ages.


@pytest.mark.parametrize(("age", "is_left"), [(WEEK - 1, True), (WEEK, False)])
def test_pending_records_wait_for_a_week(host: Host, age: float, is_left: bool) -> None:
    """Then they are given up, and counted."""
    spool = host.spool()
    spool.append(records(0, 1))
    host.passes(age)
    assert (["0", "1"] if is_left else []) == names(leased(spool, 9))
    assert (0 if is_left else 2) == spool.counters().evicted
    assert balanced(spool.counters())


def test_what_is_under_way_is_not_given_up(host: Host) -> None:
    """It has its chance, however old it is; after that it is too late."""
    spool, other = host.spool(lease_time=60.0), host.spool(lease_time=60.0)
    spool.append(records(0, 1))
    host.passes(WEEK - 1)
    rows = leased(spool)
    host.passes(6.0)
    other.lease(9, LARGE, bulk=False)
    assert (1, 1) == (spool.counters().evicted, spool.counters().pending)
    settle(spool, rows)
    assert (1, 0) == (spool.counters().delivered, spool.counters().pending)


@pytest.mark.parametrize(("age", "is_left"), [(DAY - 1, True), (DAY, False)])
def test_rejected_records_are_kept_for_a_day_with_the_reason(host: Host, age: float, is_left: bool) -> None:
    """So that an operator can look at them; they stay counted, and are handed out to nobody."""
    spool = host.spool()
    spool.append(records(0, 1))
    spool.settle([Outcome(row, "rejected", "no such model") for row in leased(spool)], "HTTP 400")
    assert [("0", "customer-0", "no such model", b"xxxxx")] == asked(
        host.path, "SELECT record_id, customer, reason, entry FROM records WHERE is_rejected = 1"
    )
    assert [("HTTP 400",)] == asked(host.path, "SELECT last_error FROM destinations")
    host.passes(age)
    assert ["1"] == names(leased(spool, 9))
    assert ([(1,)] if is_left else []) == asked(host.path, "SELECT is_rejected FROM records WHERE is_rejected = 1")
    assert 1 == spool.counters().rejected
    assert balanced(spool.counters())


def test_a_great_many_old_records_are_given_up_in_turns(host: Host) -> None:
    """More than one transaction takes, and not one that blocks all others for long."""
    spool = host.spool()
    spool.append(records(*range(2 * ageing.AT_ONCE + 1)))
    host.passes(WEEK)
    spool.append(records("young"))
    assert ["young"] == names(leased(spool, 9))
    assert 2 * ageing.AT_ONCE + 1 == spool.counters().evicted


def test_giving_up_makes_way_for_sending(host: Host) -> None:
    """On a slow disk the rest of what is too old waits for the next lease, and that for nothing."""

    class Slow(sqlite3.Connection):
        def executemany(self, statement: str, values: Any) -> sqlite3.Cursor:
            if statement.startswith("DELETE FROM records"):
                time.sleep(0.3)
            return super().executemany(statement, values)

    spool = host.spool(connection_type=Slow)
    spool.append(records(*range(3 * ageing.AT_ONCE)))
    host.passes(WEEK)
    spool.append(records("young"))
    (row,) = leased(spool)
    assert 2 * ageing.AT_ONCE == spool.counters().evicted
    settle(spool, [row], "returned")
    assert ["young"] == names(leased(spool, 9))
    assert 3 * ageing.AT_ONCE == spool.counters().evicted


def test_any_number_and_size_of_records_comes_out_as_it_went_in(host: Host) -> None:
    """Also more at once than one statement takes, and some that are read one by one."""
    spool = host.spool()
    put = [Record(str(number), b"x" * (200_000 if number % 100 == 7 else number)) for number in range(263)]
    assert len(put) == spool.append(put)
    rows = leased(spool, 500, bulk=True)
    assert [(each.record_id, each.entry) for each in put] == [(row.record_id, row.entry) for row in rows]
    settle(spool, rows)
    assert (263, 0, 0) == (spool.counters().delivered, spool.counters().pending, spool.counters().pending_bytes)
    assert balanced(spool.counters())


@pytest.mark.parametrize("size", [WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW, 3 * WINDOW + 1])
def test_a_large_record_goes_in_and_comes_out_in_windows(host: Host, size: int) -> None:
    """Not a byte of it changes at a border, in whatever company it is; and the app has its turn in between."""
    entry = bytes(number % 251 for number in range(size))
    put = [record("small"), Record("one", entry), Record("other", entry[::-1]), record("last")]
    spool = host.spool()
    with Counting() as counting:
        assert 4 == spool.append(put)
        appending = counting.moments
        rows = leased(spool, 9)
    assert [(each.record_id, each.entry) for each in put] == [(row.record_id, row.entry) for row in rows]
    windows = 2 * -(-size // WINDOW) if size > WINDOW else 0
    assert (windows, windows) == (appending, counting.moments - appending)
    settle(spool, rows)
    assert (4, 0, 0) == (spool.counters().delivered, spool.counters().pending, spool.counters().pending_bytes)


def test_a_large_record_does_not_keep_the_others_waiting() -> None:
    """Where it takes long to come to each window's turn, as beside threads that compute, the windows grow."""
    entry = bytes(number % 251 for number in range(100 * WINDOW))
    asked = 0
    seconds = 0.0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return asked * seconds

    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE records (entry BLOB)")
    connection.execute("INSERT INTO records VALUES (zeroblob(?)), (zeroblob(?))", (len(entry), len(entry)))
    LargeEntries(connection, clock).write(1, entry)
    quickly = asked
    seconds, asked = 0.03, 0
    slow = LargeEntries(connection, clock)
    slow.write(2, entry)
    slowly = asked
    assert entry == slow.read(1) == slow.read(2)
    connection.close()
    # One look at the clock at the beginning, and one for each window.
    assert (1 + 100, 1 + 5) == (quickly, slowly)


# Several destinations in one file.


def test_other_destinations_are_never_seen(host: Host) -> None:
    """What another app, or the same one with another key, keeps in the same file: not leased, not counted."""
    one, other = host.spool(HERE), host.spool(ELSEWHERE)
    assert [] == leased(other)
    one.append(records(0, 1))
    assert SpoolCounters() == ledger(other)
    assert 0 == other.backlog()
    other.append(records(2))
    assert ["2"] == names(leased(other, 9))
    rows = leased(one, 9)
    assert ["0", "1"] == names(rows)
    one.settle([Outcome(row, "returned", rest=3600.0) for row in rows])
    other.hasten()
    assert [] == leased(one, 9)
    assert (2, 1) == (one.counters().pending, other.counters().pending)


def test_ages_of_one_app_are_not_those_of_another(host: Host) -> None:
    """An app that keeps records for a minute does not give up another one's; after a week it does, for nobody may."""
    brief, patient = host.spool(HERE, max_pending_age=60.0), host.spool(ELSEWHERE)
    brief.append(records(0))
    patient.append(records(1))
    host.passes(61.0)
    leased(brief)
    assert (1, 0) == (brief.counters().evicted, patient.counters().evicted)
    brief.append(records(2))
    host.passes(WEEK)
    leased(brief)
    assert (2, 1) == (brief.counters().evicted, patient.counters().evicted)


# Whether what this process appended is settled.


def test_each_process_waits_for_its_own_records_only(host: Host) -> None:
    """What others have in the file, before or after, is not waited for."""
    one, other = host.spool(), host.spool()
    one.append(records(0))
    other.append(records(1))
    one.append(records(2))
    mark = one.position()
    other.append(records(3))
    rows = leased(other, 4)
    settle(other, [rows[0], rows[2]])
    assert one.is_settled(mark)
    assert not other.is_settled(other.position())
    settle(other, rows)
    assert other.is_settled(other.position())


def test_a_lease_of_the_old_file_means_nothing_in_the_new_one(host: Host) -> None:
    """Though another record lies at the same place there, on lease to the same process until the same moment."""
    spool = host.spool()
    spool.append(records(0, 1))
    settle(spool, leased(spool))
    old = leased(spool)
    for each in host.path.parent.iterdir():
        each.unlink()
    spool.append(records(2))
    new = leased(spool, 9)
    assert ["1", "2"] == names(new)
    assert old[0].position == new[1].position
    settle(spool, old)
    assert (0, 2) == (spool.counters().delivered, spool.counters().pending)


def test_after_a_renewal_without_records_nothing_is_waited_for(host: Host) -> None:
    """What was settled in the old file is settled, though the new one counts anew."""
    spool = host.spool()
    spool.append(records(0, 1))
    settle(spool, leased(spool, 9))
    mark = spool.position()
    for each in host.path.parent.iterdir():
        each.unlink()
    assert spool.is_settled(mark)
    spool.append(records(2))
    assert spool.is_settled(mark)
    assert not spool.is_settled(spool.position())


def test_counters_of_a_file_that_cannot_be_read_are_the_last_ones(host: Host) -> None:
    """Somebody who asks for numbers is not told of a disk that fails."""
    spool = host.spool()
    spool.append(records(0))
    last = spool.counters()
    host.path.unlink()
    Path(f"{host.path}.lock").unlink()
    Path(f"{host.path}.lock").mkdir()
    assert last == spool.counters()


# Room.


def test_a_look_makes_no_new_file_in_place_of_one_that_is_gone(host: Host) -> None:
    """To save what was in it takes time, which whoever only looks may not have; the next record finds out."""
    spool = host.spool()
    spool.append(records(0))
    before = spool.counters()
    host.path.unlink()
    assert before == spool.counters()
    assert not host.path.exists()
    spool.append(records(1))
    assert 2 == spool.counters().pending


def test_a_look_waits_for_no_other_thread(host: Host) -> None:
    """While one is at the connection that looks, the last view is the answer."""
    spool = host.spool()
    spool.append(records(0))
    before = spool.counters()
    spool.append(records(1))
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with spool._attached.reading.held():
            held.set()
            assert go_on.wait(DEADLINE)

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(DEADLINE)
    during = spool.counters()
    go_on.set()
    holding.join(DEADLINE)
    assert before == during
    assert 2 == spool.counters().pending


def test_what_is_put_into_the_file_meanwhile_gives_nobody_the_records_of_others(host: Host) -> None:
    """While a process has the file closed, as around a fork, somebody may empty it: then its destination has no number.

    Another one that comes first gets the number it had, and must not get its records.
    """
    one = host.spool(HERE)
    for number in range(2):
        one.append(records(number))
    for database in (one._attached.writing, one._attached.reading, one._attached.tidying):
        database.detach().leave()
    with host.path.open("r+b") as file:
        file.truncate(0)
    other = host.spool(ELSEWHERE)
    other.append(records("of the other"))
    one.append(records("of the one"))
    assert (1, 1) == (one.backlog(), other.backlog())
    assert ["of the other"] == names(leased(other, 9))
    assert ["of the one"] == names(leased(one, 9))


def test_a_thread_that_a_disk_has_swallowed_swallows_no_other(host: Host) -> None:
    """Whoever has the turn and never comes back holds up the others until their patience ends, and no longer."""
    spool = host.spool()
    spool.append(records(0))
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with spool._attached.writing.held():
            held.set()
            assert go_on.wait(DEADLINE)

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(DEADLINE)
    spool.end_by(time.monotonic())
    for attempt in (lambda: spool.append(records(1)), spool.backlog):
        with pytest.raises(SpoolBusy, match="another thread"):
            attempt()
    go_on.set()
    holding.join(DEADLINE)
    assert 1 == spool.append(records(2))


def test_a_look_at_a_connection_that_another_thread_gives_away(host: Host) -> None:
    """It looks at the next one."""
    database = Database(str(host.path))
    seats = [database.detach(), database._seat()]
    database._seat = lambda: seats.pop(0)  # type: ignore[method-assign]  # the moment in between, which no test can hit
    left = seats[0]
    assert [(1,)] == database.glance("SELECT 1", (), DEADLINE)
    del database._seat
    left.leave()
    database.close()


def test_a_first_look_waits_until_the_file_is_open(host: Host) -> None:
    """There is no older view that could be told instead; so it is not taken for an empty one."""
    host.spool().append(records(0, 1))
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with files.exclusively(str(host.path)):
            held.set()
            assert go_on.wait(DEADLINE)

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(DEADLINE)
    spool = host.spool()
    assert 0 == spool.counters().pending
    threading.Timer(0.05, go_on.set).start()
    assert 2 == spool.counters().pending
    holding.join(DEADLINE)


def test_a_full_file_refuses_the_new_records_and_keeps_the_old(host: Host) -> None:
    """The file with its log stays within its bound; what is delivered makes room."""
    most = 4 * 1024 * 1024
    spool = host.spool(max_bytes=most)
    taken = 0
    while (n := spool.append([record(taken + each, 10_000) for each in range(10)])) == 10:
        taken += n
        assert taken < 500
    taken += n
    size = sum(each.stat().st_size for each in host.path.parent.iterdir() if not each.name.endswith("-shm"))
    assert 0.75 * most < size <= 1.02 * most
    assert 0 == spool.append([record("too much", 20_000)])
    rows = leased(spool, 100)
    assert [str(number) for number in range(100)] == names(rows)
    settle(spool, rows)
    host.passes(1.0)
    assert 10 == spool.append([record(taken + each, 10_000) for each in range(10)])
    assert balanced(spool.counters())


def test_a_record_larger_than_the_bound_is_refused_and_those_before_it_are_not(host: Host) -> None:
    """Counted from the first, up to the one that does not fit."""
    spool = host.spool(max_bytes=4 * 1024 * 1024)
    assert 1 == spool.append([record(0), record(1, 5 * 1024 * 1024), record(2)])
    assert ["0"] == names(leased(spool, 9))


def test_rejected_records_make_way_for_new_ones(host: Host) -> None:
    """Evidence of what the vendor did not want is not kept at the cost of what it may want."""
    spool = host.spool(max_bytes=4 * 1024 * 1024)
    while spool.append([record("old", 50_000)]):
        rows = leased(spool)
        settle(spool, rows, "rejected")
        host.passes(0.01)
        if spool.counters().appended > 120:
            break
    assert 120 < spool.counters().appended
    assert balanced(spool.counters())
    assert [(0,)] != asked(host.path, "SELECT count(*) FROM records WHERE is_rejected = 1")


# No trace.


def test_an_idle_spool_leaves_no_text_of_what_it_delivered(host: Host) -> None:
    """Not in the file, not in its log, whatever the size of the records; and the file is small again."""
    spool = host.spool()
    for size in (10, 300, 3000, 30_000):
        text = (b"a prompt of somebody's " * (size // 20 + 1))[:size] + b"a prompt of somebody's"
        spool.append([Record(f"id-of-a-record-{number}", text, "acme-ltd") for number in range(40)])
        while rows := leased(spool, 7):
            settle(spool, rows)
    assert not without_a_trace(host.path, b"a prompt of somebody's")
    host.passes(5.0)
    assert [] == leased(spool)
    assert 0 == Path(f"{host.path}-wal").stat().st_size
    for text in (b"a prompt of somebody's", b"id-of-a-record", b"acme-ltd"):
        assert without_a_trace(host.path, text)
    assert host.path.stat().st_size < 200_000
    assert 160 == spool.counters().delivered


def test_an_idle_spool_does_nothing_to_the_disk(host: Host) -> None:
    """What is tidy stays as it is, however often somebody looks."""
    spool = host.spool()
    spool.append(records(0))
    settle(spool, leased(spool))
    seen: list[list[tuple[str, int, int]]] = []
    for _ in range(5):
        host.passes(5.0)
        assert [] == leased(spool)
        files = sorted(host.path.parent.iterdir())
        seen.append([(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in files])
    # The first time it tidies up, then lets go of its claim, and tidies up after that.
    assert seen[1] == seen[2] == seen[3] == seen[4]


def test_an_idle_process_cleans_up_after_another(host: Host) -> None:
    """Whoever appended may be dead by then."""
    one, other = host.spool(), host.spool()
    one.append([record("id-of-a-record", 5000)])
    settle(other, leased(other))
    host.passes(5.0)
    leased(other)
    one.append([record("id-of-another", 5000)])
    settle(other, leased(other))
    host.passes(5.0)
    leased(other)
    assert without_a_trace(host.path, b"id-of-another")


def test_the_log_does_not_grow_without_end(host: Host) -> None:
    """Whoever appends shortens it when nobody ships, and whoever ships keeps it shorter."""
    most = 32 * 1024 * 1024
    spool = host.spool(max_bytes=most)
    log = Path(f"{host.path}-wal")
    for number in range(40):
        spool.append([record(number, 500_000)])
        host.passes(1.0)
        assert log.stat().st_size < 18 * 1024 * 1024
    while rows := leased(spool):
        settle(spool, rows)
        host.passes(1.0)
    spool.append(records("last"))
    settle(spool, leased(spool))
    assert log.stat().st_size <= 5 * 1024 * 1024


# Outages.


def test_outcomes_are_kept_while_the_disk_fails_and_said_later(host: Host, moody: type[Moody]) -> None:
    """What was delivered is not delivered again, only because nobody could write it down at once."""
    spool = host.spool(connection_type=moody)
    spool.append(records(0, 1, 2))
    rows = leased(spool, 2)
    moody.is_full = True
    with pytest.raises(SpoolUnavailable, match="full"):
        settle(spool, rows[:1])
    with pytest.raises(SpoolUnavailable, match="full"):
        settle(spool, rows[1:], "rejected")
    with pytest.raises(SpoolUnavailable, match="full"):
        leased(spool)
    assert SpoolCounters(appended=3, pending=3, pending_bytes=15, oldest_pending=0.0) == ledger(spool)
    moody.is_full = False
    assert ["2"] == names(leased(spool, 9))
    counters = spool.counters()
    assert (1, 1, 1) == (counters.delivered, counters.rejected, counters.pending)


def test_outcomes_are_said_when_the_spool_is_closed(host: Host, moody: type[Moody]) -> None:
    """The last chance for it; then nothing is on lease, and another may ship at once."""
    one, other = host.spool(connection_type=moody), host.spool()
    one.append(records(0, 1))
    rows = leased(one)
    moody.is_full = True
    with pytest.raises(SpoolUnavailable, match="full"):
        settle(one, rows)
    moody.is_full = False
    one.close()
    assert 1 == one.counters().delivered
    assert ["1"] == names(leased(other))


def test_what_could_not_be_appended_has_not_been(host: Host, moody: type[Moody]) -> None:
    """All or nothing: neither a row nor a number is left of it."""
    spool = host.spool(connection_type=moody)
    spool.append(records(0))
    moody.is_full = True
    with pytest.raises(SpoolUnavailable, match="full"):
        spool.append(records(1, 2))
    moody.is_full = False
    assert 1 == spool.counters().appended
    assert [(1,)] == asked(host.path, "SELECT count(*) FROM records")


def test_a_large_record_is_appended_whole_or_not_at_all(host: Host) -> None:
    """A disk that fails in the middle of it leaves nothing of it behind, and nothing of those beside it."""

    class Failing(sqlite3.Connection):
        is_failing = True

        def blobopen(self, *place: Any, **how: Any) -> sqlite3.Blob:
            blob = super().blobopen(*place, **how)
            if Failing.is_failing:
                # What the next use of it raises as well when the record has changed meanwhile.
                self.execute("UPDATE records SET attempts = 1")
            return blob

    spool = host.spool(connection_type=Failing)
    with pytest.raises(SpoolUnavailable):
        spool.append([record("before"), record("large", 200_000), record("after")])
    assert (0, 0) == (spool.counters().appended, spool.counters().pending_bytes)
    assert [(0,)] == asked(host.path, "SELECT count(*) FROM records")
    Failing.is_failing = False
    assert 1 == spool.append([record("large", 200_000)])
    assert [b"x" * 200_000] == [row.entry for row in leased(spool)]


# A file in the place of another.


def test_who_only_looks_makes_no_file(host: Host) -> None:
    """Numbers, marks and the end of a process that recorded nothing; numbers of a file that is there are shown."""
    spool, other = host.spool(), host.spool()
    assert 0 == spool.counters().appended
    assert spool.is_settled(spool.position())
    spool.close()
    assert spool.is_settled(spool.position())
    assert [] == list(host.path.parent.iterdir())
    other.append(records(0))
    assert 1 == host.spool().counters().pending


def test_a_spool_that_a_thread_is_still_at_stays_open(host: Host) -> None:
    """What that thread has in hand can be written and settled; then it is closed once more."""
    spool = host.spool()
    spool.append(records(0))
    rows = leased(spool, 1)
    assert 0 == spool.close(is_in_use=True)
    assert 1 == spool.append(records(1))
    settle(spool, rows)
    assert (1, 1) == (spool.counters().delivered, spool.counters().pending)
    assert 0 == spool.close()
    with pytest.raises(SpoolUnavailable, match="closed"):
        spool.append(records(2))


def test_records_of_a_deleted_file_are_saved_whoever_finds_out(host: Host) -> None:
    """Also by a part of the process that has never looked into the old one."""
    one, other = host.spool(), host.spool()
    for spool in (one, other):
        spool.append(records("saved"))
        mark = spool.position()
        for each in host.path.parent.iterdir():
            each.unlink()
        if spool is one:
            assert not spool.is_settled(mark)
        assert ["saved"] == names(leased(spool))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_connection_that_is_closed_for_a_moment_notices_too(host: Host, is_there: bool) -> None:
    """As after a fork or an outage: what another one still has open is saved, once, and nothing of the new file."""
    spool, other = host.spool(), host.spool()
    spool.append(records(0))
    renewal.closed((spool._attached.writing,))
    for each in host.path.parent.iterdir():
        each.unlink()
    if is_there:
        other.append(records(1))
    spool.append(records(2))
    assert (["1", "0", "2"] if is_there else ["0", "2"]) == names(leased(spool, 9))


def test_a_file_that_is_replaced_while_it_is_opened_is_not_used(host: Host) -> None:
    """Two files at once are no spool; the next attempt finds the new one."""

    class Hasty(sqlite3.Connection):
        is_done = False

        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement == "SELECT 1" and not Hasty.is_done:
                Hasty.is_done = True
                for each in host.path.parent.iterdir():
                    each.unlink()
            return super().execute(statement, *values)

    spool = host.spool(connection_type=Hasty)
    with pytest.raises(SpoolUnavailable, match="replaced while it was opened"):
        spool.append(records(0))
    spool.append(records(1))
    assert ["1"] == names(leased(spool, 9))


def test_records_of_a_file_that_is_deleted_go_into_a_new_one(host: Host) -> None:
    """Each process saves its own; what was on lease in the old one means nothing in the new one."""
    one, other = host.spool(), host.spool()
    one.append(records(0, 1))
    other.append(records(2))
    mark = one.position()
    rows = leased(one, 9)
    for each in host.path.parent.iterdir():
        each.unlink()
    settle(one, rows)
    assert not one.is_settled(mark)
    again = leased(one, 9)
    assert ["0", "1"] == names(again)
    assert not one.is_settled(mark)
    one.append(records(3))
    settle(one, again)
    assert one.is_settled(mark)
    assert not one.is_settled(one.position())
    assert 3 == other.append(records(4, 5, 6))
    assert ["3", "2", "4", "5", "6"] == names(leased(one, 9))
    assert balanced(one.counters())


def test_records_that_fit_nowhere_are_counted(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """What neither the new file nor memory takes is lost, and that is said."""
    rescued: list[Record] = []

    def rescue(some: Sequence[Record]) -> int:
        rescued.extend(some[:1])
        return len(some[:1])

    spool = host.spool(connection_type=Moody)
    spool.rescue = rescue
    spool.append(records(*range(150)))
    for each in host.path.parent.iterdir():
        each.unlink()
    Moody.is_full = True
    try:
        with pytest.raises(SpoolUnavailable):
            spool.append(records("new"))
    finally:
        Moody.is_full = False
    assert ["0", "100"] == [each.record_id for each in rescued]
    assert "148 records of a file that is gone" in caplog.text
    assert spool.is_settled((0, 150))


def test_what_can_be_read_of_a_damaged_file_is_saved(host: Host) -> None:
    """The process that finds the damage puts the file aside; the others follow, each with what it can read."""
    one, other = host.spool(), host.spool()
    one.append([record(number, 10_000) for number in range(400)])
    one._upkeep._empty_log(one._attached.writing)
    size = host.path.stat().st_size
    with host.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    other.append(records("new"))
    assert 1 == one.append(records("newer"))
    assert [] != list(host.path.parent.glob("spool.db.corrupt-*"))
    rows = leased(one, 999)
    assert {"new", "newer"} <= set(names(rows))
    assert len(rows) == len(set(names(rows))) < 402
    assert balanced(one.counters())


def test_of_two_who_find_the_damage_one_puts_the_file_aside(host: Host) -> None:
    """The second one leaves the new file alone."""
    one, other = host.spool(), host.spool()
    one.append(records(0))
    other.append(records(1))
    damage = SpoolCorrupt("damaged")
    renewal.given_up((one._attached.writing,), damage)
    assert not host.path.exists()
    other.append(records(2))
    renewal.given_up((one._attached.writing,), damage)
    assert 1 == len([each for each in host.path.parent.iterdir() if each.match("*.corrupt-???????????????")])
    assert ["0", "1", "2"] == sorted(names(leased(one, 9)))


def test_two_threads_that_find_the_file_gone_make_one_new_one(host: Host) -> None:
    """Who comes second goes on in the file of the first."""
    spool = host.spool()
    spool.append(records(0))
    rounds: list[int] = []

    def overtaken() -> int:
        rounds.append(spool._attached.generation)
        if len(rounds) == 1:
            for each in host.path.parent.iterdir():
                each.unlink()
            spool.append(records(1))
            raise SpoolGone("as the other one was told")
        return 7

    assert 7 == spool._attached.attempt(overtaken)
    assert [0, 1] == rounds
    assert ["0", "1"] == names(leased(spool, 9))


# Growth.

_QUESTIONS = [
    (claims.QUESTION, ("", "")),
    (spool_module._OWN_PENDING, ("", "", "", 1)),
    (spool_module._COUNTERS, ("", "")),
    (tables._WAITING, (1, 1)),
    (tables._NEXT_DUE, (1, 1)),
    (ageing._FRONT, (1, 1, 1, 1, 1)),
    (ageing._OLDEST_REJECTED, (1, 1)),
]


@pytest.mark.parametrize(("question", "values"), _QUESTIONS)
def test_no_question_looks_through_all_records(host: Host, question: str, values: tuple[object, ...]) -> None:
    """Each finds its rows by an index, and sorts nothing."""
    host.spool().append(records(0))
    plan = [step for *_, step in asked(host.path, f"EXPLAIN QUERY PLAN {question}", values)]
    assert plan
    assert [] == [
        step for step in plan if ("SCAN" in step or "B-TREE" in step) and "front" not in step and "(sub" not in step
    ]


def test_work_does_not_grow_with_what_waits(host: Host) -> None:
    """The steps that SQLite takes for a round are the same with a thousand records in the file and twenty thousand."""
    steps = [0]

    class Counted(sqlite3.Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1) or 0, 10)

    spool, other = host.spool(connection_type=Counted), host.spool()

    def round_of_all() -> int:
        steps[0] = 0
        spool.append(records("a", "b"))
        rows = leased(spool, 3, bulk=True)
        spool.settle([Outcome(rows[0], "returned", attempts=1, rest=0.1), Outcome(rows[1], "delivered")])
        settle(spool, rows[2:], "rejected")
        spool.counters()
        spool.backlog()
        spool.bulk_wait()
        spool.renew()
        spool.hasten()
        assert not spool.is_settled(spool.position())
        host.passes(1.0)
        return steps[0]

    other.append(records(*range(1000)))
    round_of_all()
    few = max(round_of_all() for _ in range(6))
    for _ in range(20):
        other.append(records(*range(1000)))
    many = max(round_of_all() for _ in range(6))
    assert many < 1.5 * few


def test_a_record_on_its_way_takes_few_statements(host: Host) -> None:
    """Each lets go of the interpreter, and has to wait for it beside an app that computes."""
    statements: list[str] = []

    class Traced(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            statements.append(statement.split()[0])
            return super().execute(statement, *values)

    spool = host.spool(connection_type=Traced)
    spool.append(records(0))
    settle(spool, leased(spool))

    statements.clear()
    spool.append(records(1))
    rows = leased(spool)
    settle(spool, rows)
    assert [
        *("BEGIN", "SELECT", "INSERT", "UPDATE", "COMMIT"),
        *("SELECT", "BEGIN", "SELECT", "SELECT", "INSERT", "COMMIT"),
        *("BEGIN", "DELETE", "DELETE", "UPDATE", "COMMIT"),
    ] == statements
    assert SpoolCounters(appended=2, delivered=2) == ledger(spool)


def test_bounds_have_defaults() -> None:
    """A week, a day, a minute."""
    bounds = Bounds(max_bytes=1)
    assert (WEEK, DAY, 60.0) == (bounds.max_pending_age, bounds.max_rejected_age, bounds.lease_time)


def test_its_own_clocks_are_those_of_the_machine(tmp_path: Path) -> None:
    """Without clocks of the test's, time passes by itself."""
    spool = DiskSpool(str(tmp_path / "spool.db"), HERE, Bounds(max_bytes=1 << 24))
    spool.append(records(0))
    age = spool.counters().oldest_pending
    assert age is not None
    assert 0.0 <= age < 30.0
    assert [MOST_TOGETHER] == [row.together for row in leased(spool)]
    spool.close()

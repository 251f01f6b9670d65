"""Single records over a few connections at once: each sent once, none begun in vain, nobody waited for in vain."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._delivery.crew import Crew, _Work
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.verdict import Fate, Verdict
from kwai_middleware._secret import Secret
from tests.support.logs_api import KEY, LogsAPI, answer, logs_api, taken
from tests.support.processes import DEADLINE, PROJECT

DELIVERED = Verdict(Fate.DELIVERED)


def entry(name: object) -> bytes:
    """A record of that id."""
    return json.dumps({"model": "m", "metadata": {"kwai_record_id": str(name)}}).encode()


def entries(count: int) -> list[bytes]:
    return [entry(number) for number in range(count)]


def new_sender(api: LogsAPI) -> Callable[[], Sender]:
    return lambda: Sender(api.url, Secret(KEY))


@contextlib.contextmanager
def crew_at(api: LogsAPI, most: int = 4, **more: Any) -> Iterator[Crew]:
    """A crew that is closed at the end."""
    crew = Crew(new_sender(api), most, **more)
    try:
        yield crew
    finally:
        crew.close()


def sending_threads() -> int:
    """How many helpers there are in this process."""
    # `threading` goes on listing a thread that it has not started itself.
    alive = sys._current_frames()
    return sum(thread.name == "kwai-sending" and thread.ident in alive for thread in threading.enumerate())


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look often until it is so."""
    until = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)  # an end of a thread without join: nothing to wait on


@pytest.fixture(autouse=True)
def no_helper_is_left() -> Iterator[None]:
    """Each test's helpers end with it."""
    yield
    wait_until(lambda: not sending_threads())


class Gate:
    """Answers nothing until so many records are there at once."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties)

    def __call__(self, entry: dict[str, Any], times: int) -> bytes:
        self._barrier.wait(DEADLINE)
        return taken(entry, times)


def test_many_records_go_over_four_connections() -> None:
    """Four are under way at the same time, each arrives once, and the connections are kept for the next time."""
    with logs_api(Gate(4)) as api, crew_at(api) as crew:
        assert [DELIVERED] * 40 == crew.send_all(entries(40), DEADLINE)
        assert [DELIVERED] * 40 == crew.send_all(entries(40), DEADLINE)
        assert dict.fromkeys(map(str, range(40)), 2) == Counter(api.arrived)
        assert (4, 3) == (api.connections, sending_threads())


@pytest.mark.parametrize(("count", "most", "expected"), [(1, 4, 1), (2, 4, 2), (3, 2, 2), (9, 1, 1)])
def test_no_more_connections_than_records(count: int, most: int, expected: int) -> None:
    """One record needs no helper, and the limit is one."""
    with logs_api(Gate(expected) if count % expected == 0 else taken) as api, crew_at(api, most) as crew:
        assert [DELIVERED] * count == crew.send_all(entries(count), DEADLINE)
        assert api.connections <= expected


def test_nothing_to_send_is_nothing_sent() -> None:
    """No record, no connection."""
    with logs_api() as api, crew_at(api) as crew:
        assert [] == crew.send_all([], DEADLINE)
        crew.halt()
    assert 0 == api.connections


@given(fates=st.lists(st.sampled_from([200, 422]), max_size=12), most=st.integers(1, 4))
def test_each_record_gets_the_verdict_that_is_its_own(fates: list[int], most: int) -> None:
    """The order is that of the records, whoever sends them; what is wrong with one stops no other."""

    def by_id(entry: dict[str, Any], times: int) -> bytes:
        return answer(fates[int(entry["metadata"]["kwai_record_id"])])

    expected = [Fate.DELIVERED if status == 200 else Fate.REJECTED for status in fates]
    with logs_api(by_id) as api, crew_at(api, most) as crew:
        verdicts = crew.send_all(entries(len(fates)), DEADLINE)
    assert expected == [verdict and verdict.fate for verdict in verdicts]


@pytest.mark.parametrize(("status", "fate"), [(429, Fate.BUSY), (401, Fate.REFUSED), (500, Fate.FAILED)])
def test_no_further_record_is_begun_when_one_fails(status: int, fate: Fate) -> None:
    """What is under way is waited for; the others come back as they went in, without a verdict."""
    gate = threading.Barrier(4)

    def fail_the_third(entry: dict[str, Any], times: int) -> bytes:
        gate.wait(DEADLINE)
        is_third = entry["metadata"]["kwai_record_id"] == "2"
        if not is_third:
            # Answered when the third has been, and its verdict has been read.
            assert ended.wait(DEADLINE)
        return answer(status) if is_third else taken(entry, times)

    ended = threading.Event()
    with logs_api(fail_the_third) as api, crew_at(api) as crew:

        class Watched(Sender):
            def send(self, entry: bytes, timeout: float) -> Verdict:
                verdict = super().send(entry, timeout)
                if verdict.fate is fate:
                    # The next thing its thread does is to end the others' work; it waits for it to be seen.
                    threading.Thread(target=lambda: (wait_until(lambda: not crew_work(crew)), ended.set())).start()
                return verdict

        crew._new_sender = lambda: Watched(api.url, Secret(KEY))
        verdicts = crew.send_all(entries(10), DEADLINE)
        assert [Fate.DELIVERED, Fate.DELIVERED, fate, Fate.DELIVERED] + [None] * 6 == [
            verdict and verdict.fate for verdict in verdicts
        ]
        assert {"0", "1", "2", "3"} == set(api.arrived)


def crew_work(crew: Crew) -> int:
    """How many records are left to take."""
    return len(crew._work._pending) if crew._work is not None else 0


def test_a_halt_begins_no_further_record() -> None:
    """What is under way gets its verdict; and the crew goes on the next time."""
    with logs_api() as api, crew_at(api, 1) as crew:

        def halt(entry: dict[str, Any], times: int) -> bytes:
            crew.halt()
            return taken(entry, times)

        api.answer = halt
        assert [DELIVERED, None, None] == crew.send_all(entries(3), DEADLINE)
        api.answer = taken
        assert [DELIVERED] * 3 == crew.send_all(entries(3), DEADLINE)


class Breaks(Sender):
    """Has a bug on the threads where `breaks` says so."""

    breaks: Callable[[], bool]
    error: type[BaseException] = MemoryError

    def send(self, entry: bytes, timeout: float) -> Verdict:
        if self.breaks():
            raise self.error
        return super().send(entry, timeout)


def is_helper() -> bool:
    return threading.current_thread().name == "kwai-sending"


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
def test_a_helper_that_dies_is_replaced(nothing_is_swallowed: list[BaseException], error: type[BaseException]) -> None:
    """Its record is nobody's fault and nobody's success; it is told, and the next time it helps again."""
    dead = threading.Event()

    class BreaksOnce(Breaks):
        def breaks(self) -> bool:
            if is_helper() and not dead.is_set():
                dead.set()
                return True
            # The caller must not do all of it before the helper has come.
            return not dead.wait(DEADLINE)

    BreaksOnce.error = error
    with logs_api() as api, crew_at(api, 2) as crew:
        crew._new_sender = lambda: BreaksOnce(api.url, Secret(KEY))
        verdicts = crew.send_all(entries(2), DEADLINE)
        assert [DELIVERED, Verdict(Fate.FAILED, "internal error")] == sorted(verdicts, key=str)  # type: ignore[type-var]
        wait_until(lambda: bool(nothing_is_swallowed))
        assert [error] == [type(each) for each in nothing_is_swallowed]
        nothing_is_swallowed.clear()
        api.answer = Gate(2)
        assert [DELIVERED] * 2 == crew.send_all(entries(2), DEADLINE)


def test_a_bug_on_the_calling_thread_loses_no_verdict(nothing_is_swallowed: list[BaseException]) -> None:
    """It is told; what a helper has delivered meanwhile is known to be delivered."""
    has_helped = threading.Event()

    class BreaksHere(Breaks):
        def breaks(self) -> bool:
            return not is_helper() and has_helped.wait(DEADLINE)

        def send(self, entry: bytes, timeout: float) -> Verdict:
            if is_helper():
                threading.Timer(0, has_helped.set).start()
            return super().send(entry, timeout)

    with logs_api() as api, crew_at(api, 2) as crew:
        crew._new_sender = lambda: BreaksHere(api.url, Secret(KEY))
        verdicts = crew.send_all(entries(2), DEADLINE)
    assert {DELIVERED, Verdict(Fate.FAILED, "internal error")} == set(verdicts)
    assert [MemoryError] == [type(each) for each in nothing_is_swallowed]
    nothing_is_swallowed.clear()


def test_an_interrupt_passes_through() -> None:
    """Whoever presses Ctrl-C is not made to wait, and no further record is begun."""

    class Interrupted(Breaks):
        error = KeyboardInterrupt

        def breaks(self) -> bool:
            return True

    with logs_api() as api, crew_at(api, 1) as crew:
        crew._new_sender = lambda: Interrupted(api.url, Secret(KEY))
        with pytest.raises(KeyboardInterrupt):
            crew.send_all(entries(3), DEADLINE)
        assert crew._work is None
    assert [] == api.arrived


def test_helpers_without_work_end_by_themselves() -> None:
    """Idle for long, they close their connections and are gone; with work they are back."""
    with logs_api(Gate(2)) as api, crew_at(api, 2, idle=0.01) as crew:
        for _ in range(2):
            assert [DELIVERED] * 2 == crew.send_all(entries(2), DEADLINE)
            wait_until(lambda: not sending_threads())
        assert 3 == api.connections


def test_closed_it_can_be_used_again() -> None:
    """`close` ends all helpers and connections; closing twice is closing once."""
    with logs_api(Gate(3)) as api, crew_at(api, 3) as crew:
        for _ in range(2):
            assert [DELIVERED] * 3 == crew.send_all(entries(3), DEADLINE)
            crew.close()
            crew.close()
            wait_until(lambda: not sending_threads())
        assert 6 == api.connections


BEGINNING = f"""
import json, os, sys, threading, time
from kwai_middleware._delivery.crew import Crew, _Work
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._secret import Secret

crew = Crew(lambda: Sender(os.environ["KEYWORDSAI_BASE_URL"], Secret({KEY!r})))

def entries(prefix):
    return [json.dumps({{"metadata": {{"kwai_record_id": f"{{prefix}}{{number}}"}}}}).encode() for number in range(8)]

def send(prefix):
    return {{verdict.fate.value for verdict in crew.send_all(entries(prefix), 30)}}
"""


def run(api: LogsAPI, program: str, *options: str) -> str:
    """Run a program in a process of its own; returns what it printed. It complains of nothing."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore:This process:DeprecationWarning", *options, "-c", program],
        env={**os.environ, **api.environment()},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    return done.stdout


FORKING = """
def is_socket(name):
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    except OSError:
        return False  # closed meanwhile

def sockets():
    return sum(is_socket(name) for name in os.listdir("/proc/self/fd"))

def close():
    crew.close()
    until = time.monotonic() + 30
    while sockets() and time.monotonic() < until:
        time.sleep(0.01)
    print(sockets(), "left open", flush=True)

def fork(prefix):
    child = os.fork()
    if not child:
        print(send(prefix), flush=True)
        close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

print(send("before"), flush=True)
fork("child")
print(send("after"), flush=True)
close()
fork("another child")
"""


def test_a_forked_child_uses_connections_and_threads_of_its_own() -> None:
    """A crew that has been at work before a fork works on both sides of it, and holds no connection of the other's."""
    with logs_api(Gate(4)) as api:
        sent, closed = "{'delivered'}\n", "0 left open\n"
        assert sent + (sent + closed) * 3 == run(api, BEGINNING + FORKING)
    assert 32 == len(set(api.arrived)) == len(api.arrived)


def test_a_process_ends_with_idle_helpers() -> None:
    """Nobody needs to close it for the process to end."""
    with logs_api() as api:
        assert "{'delivered'}\n" == run(api, BEGINNING + "print(send(''), flush=True); os._exit(0)")
        assert "{'delivered'}\n" == run(api, BEGINNING + "print(send('')); crew._sender.close()")


def test_without_a_thread_to_be_had_the_caller_sends_alone() -> None:
    """A limit on threads makes it slower, not worse."""
    limit = "threading.stack_size(1 << 46)  # no machine has that much: every start of a thread fails from here on"
    with logs_api() as api:
        assert "{'delivered'}\n" == run(api, f"{BEGINNING}{limit}\nprint(send(''))\ncrew.close()")
        assert (1, 8) == (api.connections, len(api.arrived))


def test_under_gevent_helpers_are_real_threads() -> None:
    """Four records are under way at once while the hub is blocked by the caller."""
    program = "from gevent import monkey; monkey.patch_all()\n" + BEGINNING + "print(send(''))\ncrew.close()"
    with logs_api(Gate(4)) as api:
        assert "{'delivered'}\n" == run(api, program)
        assert 4 == api.connections


class _Announced:
    """A queue that says when somebody begins to wait at it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.is_waited_at = threading.Event()

    def put(self, item: None) -> None:
        self._queue.put(item)

    def get(self) -> None:
        self.is_waited_at.set()
        self._queue.get()


class _Slow(Sender):
    """A sender that takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9", Secret(KEY))
        self.has_begun, self.go_on = threading.Event(), threading.Event()

    def send(self, entry: bytes, timeout: float) -> Verdict:
        self.has_begun.set()
        assert self.go_on.wait(DEADLINE)
        return DELIVERED


def test_who_comes_late_and_finds_nothing_does_not_leave_in_anothers_place() -> None:
    """A record that a helper has in hand is waited for: else it would count as not begun, and be sent twice."""
    work, slow = _Work([entry(0)], DEADLINE), _Slow()
    left = work._left = _Announced()  # type: ignore[assignment]  # as much of a queue as is used
    helper = threading.Thread(target=work.join_in, args=(slow,))
    helper.start()
    assert slow.has_begun.wait(DEADLINE)
    work.end()
    waiting = threading.Thread(target=work.wait)
    waiting.start()
    assert left.is_waited_at.wait(DEADLINE)
    left.is_waited_at.clear()
    work.join_in(_Slow())
    # The late one has left; whoever waits has heard of it, and waits on.
    assert left.is_waited_at.wait(DEADLINE)
    assert waiting.is_alive()
    assert [None] == work.verdicts
    slow.go_on.set()
    waiting.join(DEADLINE)
    helper.join(DEADLINE)
    assert not waiting.is_alive()
    assert [DELIVERED] == work.verdicts

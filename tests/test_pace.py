"""A background thread with a pace works in slices, and sleeps between them; no other thread does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kwai_middleware._delivery import log_entry
from kwai_middleware._outbound.observation import Observation
from kwai_middleware._pace import LONG_SLICE, SLICE, WINDOW, Pace, breathe, rest, windows
from tests.support.observations import STREAM, observed, stream_of
from tests.support.paces import Counting
from tests.support.processes import DEADLINE


def on_a_thread(work: Callable[[], object]) -> None:
    """Do something on a thread of its own, to its end."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(DEADLINE)


@pytest.fixture
def nobody_is_interrupted() -> Iterator[None]:
    """A thread keeps the interpreter until it sleeps or waits."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2 * DEADLINE)
    yield
    sys.setswitchinterval(before)


def test_a_slice_is_as_long_as_the_work_allows() -> None:
    """What is soon done is done in longer slices: fewer sleeps, that each cost as much as half of one."""
    pace = Pace()
    for length in (SLICE, LONG_SLICE):
        pace.slice = length
        before = time.perf_counter_ns()
        pace.rested()
        assert before + length <= pace.due <= time.perf_counter_ns() + length


@pytest.mark.usefixtures("nobody_is_interrupted")
def test_others_get_their_turn_while_a_thread_works() -> None:
    """A thread that computes without end lets others have the interpreter, for it really sleeps."""
    others: list[str] = []
    saw: list[list[str]] = []

    def work() -> None:
        until = time.monotonic() + DEADLINE / 2
        with Pace():
            while not others and time.monotonic() < until:
                breathe()
        saw.append(others.copy())

    worker = threading.Thread(target=work)
    worker.start()
    others.append("had a turn")
    worker.join(DEADLINE)
    assert [["had a turn"]] == saw


@pytest.mark.usefixtures("nobody_is_interrupted")
def test_in_a_hurry_a_thread_does_not_sleep() -> None:
    """When the app waits for the end of the work, there is nobody to sleep for."""
    turns = []
    done = threading.Event()

    def work() -> None:
        pace = Pace()
        with pace:
            breathe()
            pace.hurry()
            had = len(turns)
            for _ in range(1000):
                pace.rest()
            assert had == len(turns)
        done.set()

    def take_turns() -> None:
        while not done.is_set():
            turns.append(1)
            time.sleep(0)

    other = threading.Thread(target=take_turns)
    other.start()
    on_a_thread(work)
    other.join(DEADLINE)


def test_other_work_is_done_meanwhile_and_not_within_itself() -> None:
    """What waits is done in the middle of what takes long; while it is, it is not called again."""
    depths: list[int] = []
    depth = 0

    def meanwhile() -> None:
        nonlocal depth
        depth += 1
        depths.append(depth)
        pace.rest()
        depth -= 1

    pace = Pace(meanwhile)

    def work() -> None:
        with pace:
            while len(depths) < 3:
                breathe()

    on_a_thread(work)
    assert [1, 1, 1] == depths


def test_a_fault_in_what_is_done_meanwhile_harms_no_other_work(nothing_is_swallowed: list[BaseException]) -> None:
    """It is told to the guard, and the work goes on."""

    def meanwhile() -> None:
        raise LookupError("ours")

    pace = Pace(meanwhile)

    def work() -> None:
        with pace:
            pace.rest()
            pace.rest()

    on_a_thread(work)
    assert [LookupError, LookupError] == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()


def test_threads_without_a_pace_do_nothing() -> None:
    """The app's threads never rest for us, also while the recording thread has a pace."""
    with (counting := Counting()):
        on_a_thread(breathe)
        assert 0 == counting.moments
        breathe()
        assert 1 == counting.moments
    breathe()
    assert 1 == counting.moments


def test_who_has_a_pace_rests_when_it_is_told_to() -> None:
    """However little it has worked, for others work on what it gave them; the app's threads do not."""
    with Pace(lambda: rests.append("rested")) as pace:
        rests: list[str] = []
        pace.slice = 10**12
        pace.rested()
        breathe()
        assert not rests
        rest()
        assert ["rested"] == rests
        on_a_thread(rest)
    rest()
    assert ["rested"] == rests


def test_a_forked_child_has_no_pace() -> None:
    """Threads of a child may go by the numbers of those that the parent had, and are others."""
    read, write = os.pipe()
    with Pace(lambda: os.write(write, b"x")) as pace:
        pid = os.fork()
        if not pid:
            pace.rest()
            breathe()
            os._exit(0)
        os.waitpid(pid, 0)
        os.write(write, b".")
    assert b"." == os.read(read, 9)
    os.close(read)
    os.close(write)


def test_windows_make_up_the_whole() -> None:
    """Each piece begins where the one before ends, and none is longer than a window."""
    for size in (0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW):
        found = list(windows(size))
        assert list(range(0, size, WINDOW)) == [start for start, _ in found]
        assert [*range(WINDOW, size, WINDOW), size][: len(found)] == [end for _, end in found]


PROSE = "Nobody asks the clerk at the desk. " * 30_000
LONG: dict[str, Observation] = {
    "a stream of many chunks": observed(
        [stream_of({"choices": [{"index": 0, "delta": {"content": "word "}}]}) for _ in range(3000)], headers=STREAM
    ),
    "a prompt": observed(request={"model": "m", "messages": [{"role": "user", "content": PROSE}]}),
    "a prompt in another script": observed(
        request=b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % PROSE.replace("a", "я").encode()
    ),
    "a prompt that goes as text": observed(
        request={"model": "m", "messages": [{"role": "user", "content": PROSE, "more": 1}]}
    ),
    "an answer": observed(
        b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"%s"}}]}'
        % PROSE.encode()
    ),
}


@pytest.mark.parametrize("name", sorted(LONG))
def test_what_is_long_is_recorded_in_slices(name: str) -> None:
    """There are many moments to rest in everything that may be long, and the record is the same."""
    observation = LONG[name]
    counting = Counting()
    alone: Any = observation.build()
    with counting:
        call = observation.build()
        entry = log_entry.encode(call, observation.secrets)
    assert alone.completions == call.completions
    assert len(entry) > 10_000
    answered = sum(map(len, observation.chunks))
    assert counting.moments > (answered + 3 * len(entry)) / WINDOW


def test_a_first_record_imports_nothing() -> None:
    """What the recording thread needs comes with the transport: an import would hold up all other threads."""
    script = """if True:
        import sys
        import httpx2
        from kwai_middleware.httpx2_transport import KwaiTransport
        calls = []
        answer = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}]}
        model = httpx2.MockTransport(lambda request: httpx2.Response(200, json=answer))
        client = httpx2.Client(transport=KwaiTransport(model, deliver=calls.append))
        client.post("https://openrouter.ai/api/v1/chat/completions", json={"model": "m", "messages": []})
        before = set(sys.modules)
        call = calls[0].build()
        print(call.outcome, *sorted(set(sys.modules) - before))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert "complete" == done.stdout.strip()

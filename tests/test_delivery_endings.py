"""How a delivery that keeps its records on disk ends: late calls, no threads, greenlets, and nobody who closes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.logs_api import LogsAPI, logs_api, taken
from tests.test_delivery_processes import GEVENT, clean, run
from tests.test_delivery_servers import run_the_next_process


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A logs API that takes everything, until the test says otherwise."""
    with logs_api() as running_api:
        yield running_api


def test_a_first_call_while_the_process_ends_is_on_disk(api: LogsAPI) -> None:
    """In a handler of the exit it is too late for one of ours; the next process delivers what was called in it."""
    program = """
def last_words():
    for number in range(3): assert default_delivery().submit(call(str(number)))
    print(default_delivery().stats().spooled)
atexit.register(last_words)
"""
    done = run(api, program)
    assert ("3\n", 0) == (done.stdout, done.returncode)
    run_the_next_process(api)
    assert {"0", "1", "2", "next process"} == set(api.arrived)


def test_no_thread_to_be_had_and_a_vendor_that_hangs_at_the_end(api: LogsAPI) -> None:
    """The thread that ends the process records what is left, and the next process delivers it."""
    api.answer = lambda entry, times: None
    program = """
threading.stack_size(1 << 46)  # no machine has that much: every start of a thread fails from here on
for number in range(5): default_delivery().submit(call(str(number)))
"""
    done = run(api, program, KWAI_EXIT_TIMEOUT="1")
    assert 0 == done.returncode
    assert "lost" not in done.stderr
    api.answer = taken
    run_the_next_process(api)
    assert {*map(str, range(5)), "next process"} == set(api.arrived)


def test_a_busy_disk_does_not_stop_the_hub_of_gevent(api: LogsAPI) -> None:
    """While another process holds the spool's file, greenlets go on; so does whoever asks for nothing but to submit."""
    program = f"""{GEVENT}
import sqlite3
delivery = default_delivery()
delivery.submit(call("first"))
assert delivery.flush(30)
path = delivery.stats().kept_in
other = sqlite3.connect(path, isolation_level=None)
other.execute("BEGIN IMMEDIATE")
longest, last = 0.0, time.monotonic()
for number in range(50):
    delivery.submit(call(str(number)))
    gevent.sleep(0.01)
    now = time.monotonic()
    longest, last = max(longest, now - last), now
before = delivery.stats().spooled
other.execute("ROLLBACK")
other.close()
print(before, longest < 0.4, delivery.flush(30), gevent.spawn(lambda: delivery.stats().spooled).get(timeout=30))
"""
    done = run(api, program)
    assert clean(done)
    assert "1 True True 51\n" == done.stdout
    assert Counter(["first", *map(str, range(50))]) == Counter(api.arrived)


def test_a_delivery_that_nobody_holds_lets_go_of_its_file(api: LogsAPI) -> None:
    """Dropped without a close, it delivers what it was given, ends its threads, and leaves no descriptor open."""
    program = """
import gc
def descriptors():
    return sorted(os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
                  if os.path.exists(f"/proc/self/fd/{number}"))
def threads():
    return [each for each in os.listdir("/proc/self/task")]
before = descriptors()
for number in range(3):
    delivery = Delivery()
    delivery.submit(call(str(number)))
    del delivery
until = time.monotonic() + 30
while (len(threads()) > 1 or descriptors() != before) and time.monotonic() < until:
    gc.collect()
    time.sleep(0.01)
print(len(threads()), descriptors() == before)
"""
    done = run(api, program)
    assert clean(done)
    assert "1 True\n" == done.stdout
    assert Counter(["0", "1", "2"]) == Counter(api.arrived)

"""What an operator should know is warned of once and counted always."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid

import pytest

from kwai_middleware import _notices
from tests.support.processes import PROJECT


def fresh() -> str:
    """An event that no other test knows."""
    return f"event-{uuid.uuid4().hex}"


def test_a_warning_is_given_once_about_each_thing(caplog: pytest.LogCaptureFixture) -> None:
    """The same event with the same thing is quiet; with another thing it is news."""
    event = fresh()
    for about in ("one", "one", "two", "one"):
        _notices.warn_once(event, about, f"about {about}: do this")
    assert ["kwai_middleware: about one: do this", "kwai_middleware: about two: do this"] == caplog.messages
    assert ["WARNING", "WARNING"] == [record.levelname for record in caplog.records]


def test_a_percent_sign_in_a_message_is_just_that(caplog: pytest.LogCaptureFixture) -> None:
    """The message is no format string."""
    _notices.warn_once(fresh(), "", "100 % of %s")
    assert ["kwai_middleware: 100 % of %s"] == caplog.messages


def test_threads_at_the_same_time_give_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Of many threads that find out together, one tells."""
    event = fresh()
    together = threading.Barrier(8)

    def warn() -> None:
        together.wait()
        _notices.warn_once(event, "", "once")

    threads = [threading.Thread(target=warn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(caplog.messages)


def test_events_are_counted() -> None:
    """`counts()` has each event with its number, and its answer is the caller's own."""
    event = fresh()
    for _ in range(3):
        _notices.count(event)
    assert 3 == _notices.counts()[event]
    _notices.counts().clear()
    assert 3 == _notices.counts()[event]


def test_a_stranger_cannot_fill_the_memory() -> None:
    """However many things are invented, the warnings that are remembered, and given, are bounded."""
    program = """
import logging
from kwai_middleware import _notices
given = []
handler = logging.Handler()
handler.emit = given.append
logging.getLogger("kwai_middleware").addHandler(handler)
for number in range(5000):
    _notices.warn_once("unknown host", str(number), "look")
print(len(given))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert ("1000\n", "") == (done.stdout, done.stderr)

"""What of ours goes wrong is counted, reported without its values, and never reaches the app."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from kwai_middleware import _guard
from kwai_middleware._secret import Secret
from kwai_middleware._tally import Tally


def fail_inside_the_package(value: object) -> None:
    """Raise where the innermost frame is one of ours."""
    with _guard.never_raise:
        Secret(value)  # type: ignore[arg-type]  # to be refused


def test_an_exception_ends_at_the_guard(nothing_is_swallowed: list[BaseException]) -> None:
    """What is raised inside the block does not come out of it, and every listener is told."""
    error = ValueError("ours")
    with _guard.never_raise:
        raise error
    assert [error] == nothing_is_swallowed
    nothing_is_swallowed.clear()


def test_a_block_that_succeeds_is_left_alone() -> None:
    """Nothing is counted when nothing goes wrong."""
    before = _guard.swallowed()
    with _guard.never_raise:
        pass
    assert before == _guard.swallowed()


@pytest.mark.parametrize(
    "interruption", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), asyncio.CancelledError()], ids=repr
)
def test_an_interruption_passes(interruption: BaseException) -> None:
    """A cancellation or the end of the program is never ours to stop."""
    with pytest.raises(type(interruption)), _guard.never_raise:
        raise interruption


def test_errors_are_counted_by_type(nothing_is_swallowed: list[BaseException]) -> None:
    """`swallowed()` says how many of each type there were, and its answer is the caller's own."""
    before = _guard.swallowed().get("LookupError", 0)
    for _ in range(3):
        _guard.report(LookupError())
    nothing_is_swallowed.clear()
    assert before + 3 == _guard.swallowed()["LookupError"]
    _guard.swallowed().clear()
    assert before + 3 == _guard.swallowed()["LookupError"]


def test_each_place_is_logged_once_and_without_values(
    nothing_is_swallowed: list[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """The log names type, file and line; not the text of the error, which may quote a key, nor its locals."""
    with caplog.at_level(logging.ERROR, "kwai_middleware"):
        for _ in range(3):
            fail_inside_the_package("")
    nothing_is_swallowed.clear()
    assert 1 == len(caplog.messages)
    assert "ValueError at _secret.py:" in caplog.messages[0]
    assert "the value is empty" not in caplog.text
    assert caplog.records[0].exc_info is None


def test_an_error_from_elsewhere_has_an_unknown_place(
    nothing_is_swallowed: list[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """An error that never was in a file of ours is reported too."""
    with caplog.at_level(logging.ERROR, "kwai_middleware"):
        _guard.report(BufferError("no traceback"))
    nothing_is_swallowed.clear()
    assert ["BufferError"] == [record.args[0] for record in caplog.records if isinstance(record.args, tuple)]


def test_a_listener_is_taken_off_again(nothing_is_swallowed: list[BaseException]) -> None:
    """Who no longer listens is not told."""
    told: list[BaseException] = []
    _guard.on_swallowed(told.append)()
    _guard.report(ConnectionError())
    nothing_is_swallowed.clear()
    assert [] == told


def test_a_broken_listener_does_no_harm(nothing_is_swallowed: list[BaseException]) -> None:
    """The guard is the last line of defence: what fails inside it goes nowhere."""

    def broken(_: BaseException) -> None:
        raise RuntimeError("the listener")

    remove = _guard.on_swallowed(broken)
    try:
        with _guard.never_raise:
            raise ValueError("ours")
    finally:
        remove()
    nothing_is_swallowed.clear()


def test_a_broken_log_handler_does_no_harm(nothing_is_swallowed: list[BaseException]) -> None:
    """An app whose logging raises does not lose its call to our report of an error."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the handler")

    handler = Broken()
    logger = logging.getLogger("kwai_middleware")
    logger.addHandler(handler)
    try:
        fail_inside_the_package(17)
        _guard.report(TimeoutError())
    finally:
        logger.removeHandler(handler)
    nothing_is_swallowed.clear()


def test_a_tally_loses_nothing_between_threads() -> None:
    """Eight threads that count at the same time arrive at the sum."""
    tally = Tally()
    assert 0 == tally.value

    def count() -> None:
        for _ in range(10_000):
            tally.add()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 80_000 == tally.value
    assert 80_000 == tally.value

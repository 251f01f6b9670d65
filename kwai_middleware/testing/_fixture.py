"""The pytest fixture `canary`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from kwai_middleware._delivery import live
from kwai_middleware.testing._canary import Canary
from kwai_middleware.testing._watchers import exceptions_watched, logging_watched, warnings_watched

__all__ = ["canary"]

_CAPTURES: Final = ("capsys", "capteesys", "capsysbinary", "capfd", "capfdbinary")


@pytest.fixture
def canary(request: pytest.FixtureRequest) -> Iterator[Canary]:
    """A customer's key, made for this test, that fails it when it shows up where it should not be.

    While the test runs it watches everything that is logged, from debug on, by any logger (messages,
    arguments, `extra`, exceptions with the locals of their frames), warnings, all that is printed, and
    exceptions that nobody catches. What else there is you hand over: `check` and `watch`. With
    `kwai_sandbox` in the same test, that is watched too. The test also fails when the key paid no call.

    What your test reads from `capsys` or `capfd` itself, the canary does not see: `check` it.

    Example:
        ::

            def test_the_key_stays_with_the_vendor(canary, kwai_sandbox):
                answer = my_client.post("/chat", headers=canary.headers("acme"), json={"question": "Hello?"})
                canary.check("the answer", answer)
    """
    watched = Canary()
    see = watched._see  # pyright: ignore[reportPrivateUsage]  # the same package
    outcome = _Outcome(request.node.nodeid)
    capture = _capture(request)
    if "kwai_sandbox" in request.fixturenames:
        watched.watch("kwai_sandbox", request.getfixturevalue("kwai_sandbox"))
    plugins = request.config.pluginmanager
    plugins.register(outcome)
    try:
        with logging_watched(see), exceptions_watched(see), warnings_watched(see):
            yield watched
            # Give the records of this process the time to arrive where they are looked at.
            live.flush_all()
    finally:
        plugins.unregister(outcome)
    for name, text in zip(("stdout", "stderr"), capture.readouterr(), strict=True):
        watched.check(name, text)
    if message := _complaint(watched, used=outcome.has_passed):
        pytest.fail(message, pytrace=False)


class _Outcome:
    """A pytest plugin for the time of one test: whether that came to its end.

    Args:
        test: Its node id.
    """

    def __init__(self, test: str) -> None:
        self._test = test
        self.has_passed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember how the test itself ended."""
        if report.nodeid == self._test and report.when == "call":
            self.has_passed = report.passed


def _complaint(watched: Canary, *, used: bool) -> str:
    try:
        watched.verify(used=used)
    except AssertionError as error:
        return str(error)
    return ""


def _capture(request: pytest.FixtureRequest) -> Any:
    """The test's own capture of its output, or one for it: there can be only one."""
    (*_, name) = ("capfd", *(each for each in _CAPTURES if each in request.fixturenames))
    return request.getfixturevalue(name)

"""What holds for every test: nothing swallowed, nobody bound, no setting from this machine, nothing kept on it."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from kwai_middleware import _guard
from kwai_middleware._context import current_caller
from tests.support.flavours import flavour
from tests.support.logs_api import api
from tests.support.places import path

__all__ = ["api", "flavour", "path"]

# These need packages that cannot be installed beside the rest: noxfile.py runs them, by name.
collect_ignore = ["apart"]

LONG = (
    "test_isolation",
    "test_kill",
    "test_diagnostics",
    "test_canary_demo",
    "test_invisibility",
    "test_invisibility_http2",
)
"""Files whose tests take many seconds each: begun last, one of them would keep the others waiting at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first."""
    items.sort(key=lambda item: item.path.stem not in LONG)


# A slow machine is no failed test: nothing here is measured by the clock.
settings.register_profile("kwai", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kwai")


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """Nothing is measured on this thread during the test; other threads, the sandbox's above all, go on being so."""
    measures = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(measures)


@pytest.fixture(autouse=True)
def nothing_is_swallowed() -> Iterator[list[BaseException]]:
    """What production swallows fails the test; a test that provokes it clears the list."""
    swallowed: list[BaseException] = []
    remove = _guard.on_swallowed(swallowed.append)
    yield swallowed
    remove()
    if swallowed:
        raise swallowed[0]


@pytest.fixture(autouse=True)
def nobody_is_left_bound() -> Iterator[None]:
    """No test leaves a caller behind, neither for us nor for structlog."""
    yield
    assert current_caller() is None
    assert "customer_id" not in structlog.contextvars.get_contextvars()


_state_numbers = itertools.count()


@functools.cache
def _state_folders() -> Path:
    """The folder of this process that holds all state folders; it goes after all that writes into them at the exit."""
    folder, owner = tempfile.mkdtemp(prefix="kwai-tests-"), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    return Path(folder)


def _use_a_new_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a state folder that is not there yet; whoever uses it makes it, as on a new machine."""
    monkeypatch.setenv("XDG_STATE_HOME", str(_state_folders() / str(next(_state_numbers))))


@pytest.fixture(scope="session", autouse=True)
def state_folder_of_the_run() -> Iterator[None]:
    """What lives as long as the run has a state folder of its own."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _use_a_new_state_folder(monkeypatch)
        yield


@pytest.fixture(scope="module", autouse=True)
def state_folder_of_the_file(state_folder_of_the_run: None) -> Iterator[None]:
    """What serves all tests of a file has a state folder of its own."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _use_a_new_state_folder(monkeypatch)
        yield


@pytest.fixture(autouse=True)
def clean_environment(state_folder_of_the_file: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and proxies of this machine do not reach the tests; what a test keeps stays in a folder of its own."""
    _use_a_new_state_folder(monkeypatch)
    prefixes = ("KWAI_", "KEYWORDSAI_", "RESPAN_", "OPENROUTER_", "OPENAI_", "ANTHROPIC_")
    for name in os.environ:
        if name.startswith(prefixes) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)

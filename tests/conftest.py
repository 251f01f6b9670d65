"""What holds for every test: nothing swallowed, nobody bound, no setting from this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from kwai_middleware import _guard
from kwai_middleware._context import current_caller
from tests.support.flavours import flavour

__all__ = ["flavour"]


# A slow machine is no failed test: nothing here is measured by the clock.
settings.register_profile("kwai", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kwai")


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


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and proxies of this machine do not reach the tests."""
    prefixes = ("KWAI_", "KEYWORDSAI_", "RESPAN_", "OPENROUTER_", "OPENAI_", "ANTHROPIC_")
    for name in os.environ:
        if name.startswith(prefixes) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)

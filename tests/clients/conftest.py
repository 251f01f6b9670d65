"""One process with the vendors for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kwai_middleware.sandbox import Sandbox
from tests.support.examples import sandbox_process

pytest.register_assert_rewrite("tests.support.clients.checks", "tests.support.clients.stainless_checks")


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    """The vendors' APIs."""
    with sandbox_process() as sandbox:
        yield sandbox

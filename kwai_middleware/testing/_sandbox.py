"""The vendors' APIs as pytest fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kwai_middleware.sandbox import Sandbox, sandbox

__all__ = ["kwai_sandbox", "kwai_sandbox_server"]


@pytest.fixture(scope="session")
def kwai_sandbox_server() -> Iterator[Sandbox]:
    """The one sandbox of a test run, started by the first test that asks for it."""
    with sandbox() as running:
        yield running


@pytest.fixture
def kwai_sandbox(kwai_sandbox_server: Sandbox) -> Sandbox:
    """The vendors' APIs on loopback, with an empty journal at the start of each test.

    Example:
        A test that calls an app and looks at what reached the vendor::

            def test_the_customer_pays(kwai_sandbox):
                client = OpenAI(base_url=kwai_sandbox.gateway_url, api_key="app", http_client=httpx2_transport.client())
                ...
                [call] = kwai_sandbox.calls(wait=1, customer="acme")
                assert call["paid_by"]["source"] == "customer_credentials"
    """
    kwai_sandbox_server.reset()
    return kwai_sandbox_server

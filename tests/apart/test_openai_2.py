"""The OpenAI SDK of before httpx2 over our clients; tests/clients/test_openai.py runs this where that SDK is."""

from __future__ import annotations

import openai

from tests.support.clients.openai_client import OpenAI
from tests.support.clients.stainless_checks import StainlessChecks
from tests.support.flavours import HTTPX


class TestOpenAI2(StainlessChecks):
    kind = OpenAI
    flavours = HTTPX
    limits = openai.DEFAULT_CONNECTION_LIMITS

    def test_the_version(self) -> None:
        """It is the older SDK that is tested."""
        assert openai.__version__.startswith("2.")

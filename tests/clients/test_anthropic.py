"""The Anthropic SDK over our clients."""

from __future__ import annotations

from typing import Any

import anthropic

from tests.support.clients.anthropic_client import Anthropic
from tests.support.clients.stainless_checks import StainlessChecks
from tests.support.flavours import HTTPX2


class TestAnthropic(StainlessChecks):
    kind = Anthropic
    flavours = HTTPX2
    routes = ("gateway", "openrouter")
    pays = ("openrouter",)
    limits = anthropic.DEFAULT_CONNECTION_LIMITS

    def resource(self, client: Any) -> Any:
        return client.client.messages

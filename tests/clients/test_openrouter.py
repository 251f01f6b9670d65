"""OpenRouter's SDK over our clients."""

from __future__ import annotations

from tests.support.clients.checks import ClientChecks
from tests.support.clients.openrouter_client import OpenRouter
from tests.support.flavours import HTTPX


class TestOpenRouter(ClientChecks):
    kind = OpenRouter
    # It takes a client of httpx2, but sends it a time-out object of httpx, which a real connection refuses.
    flavours = HTTPX

"""LangChain over our clients."""

from __future__ import annotations

from tests.support.clients.checks import ClientChecks
from tests.support.clients.langchain_client import LangChain
from tests.support.flavours import HTTPX2


class TestLangChain(ClientChecks):
    kind = LangChain
    flavours = HTTPX2

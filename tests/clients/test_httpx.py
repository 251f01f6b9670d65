"""httpx and httpx2 with no SDK above them."""

from __future__ import annotations

from tests.support.clients.checks import ClientChecks
from tests.support.clients.raw_client import Raw
from tests.support.flavours import FLAVOURS


class TestRaw(ClientChecks):
    kind = Raw
    flavours = FLAVOURS

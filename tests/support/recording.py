"""Calls through a real client to the sandbox: the record of each, and what the vendor keeps of its log."""

from __future__ import annotations

import json
from typing import Any

from kwai_middleware import CompletedCall, Delivery, bind_caller
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller
from tests.support.flavours import Flavour
from tests.support.vendor_logs import taken_whole

APP = {"authorization": "Bearer the-key-of-the-app"}
QUESTION: Any = [{"role": "user", "content": "one two three four"}]


class Recording:
    """A delivery that also shows each record before it is sent.

    Args:
        vendors: Who gets the logs.
        more: Further settings.
    """

    def __init__(self, vendors: Sandbox, **more: Any) -> None:
        self.vendors = vendors
        # All that an answer brings is looked for in its record, pictures and sounds too.
        self.settings = vendors.settings(**{"media": "keep", **more})
        self.delivery = Delivery(self.settings)
        self.calls: list[CompletedCall] = []

    def deliver(self, call: Any) -> bool:
        self.calls.append(call.build())
        return self.delivery.submit(call)

    def begin(self) -> None:
        """Forget everything before."""
        assert self.delivery.flush(30)
        self.vendors.reset()
        self.calls.clear()

    def latest(self) -> tuple[CompletedCall, dict[str, Any]]:
        """The only record since, and its log; the vendor took it whole and found no key in it."""
        assert self.delivery.flush(30)
        [call] = self.calls
        [entry] = self.vendors.logs(wait=1)
        assert (None, [], []) == (entry["lost"], entry["dropped"], entry["keys_seen"])
        assert entry["stored"]
        return call, taken_whole(json.dumps(entry["log"]).encode())


def ask(
    recording: Recording, flavour: Flavour, model: str, *, stream: bool, route: str = "openrouter", **body: Any
) -> Any:
    """Ask, and read the answer to its end, as a bare client does; returns the response."""
    recording.begin()
    base = recording.vendors.gateway_url if route == "gateway" else f"{recording.vendors.openrouter_url}/"
    client = flavour.client(settings=recording.settings, deliver=recording.deliver)
    request = {"model": model, "messages": QUESTION, "stream": stream, **body}
    try:
        with bind_caller(caller()):
            response = flavour.open(client, f"{base}chat/completions", json=request, headers=APP)
        flavour.read(response)
        flavour.close(response)
        return response
    finally:
        flavour.close(client)

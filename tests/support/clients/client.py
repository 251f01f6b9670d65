"""What the tests ask of a client, whichever SDK it is; and what is taken of its calls for the record."""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from kwai_middleware import CompletedCall
from kwai_middleware.sandbox import Sandbox
from tests.support.flavours import Flavour

__all__ = ["HOUSE_KEY", "MODEL", "WORDS", "Calls", "Client"]

HOUSE_KEY = "sk-or-v1-house-key-0123456789"
MODEL = "openai/gpt-4o"
WORDS = "one two three"


class Calls:
    """Takes finished calls as a delivery does, and builds their records."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def deliver(self, call: Any) -> bool:
        self._waiting.put(call)
        return True

    def next(self) -> CompletedCall:
        """The next record; waits for it."""
        call = self._waiting.get(timeout=30)
        call.release()
        record: CompletedCall = call.build()
        return record

    def none_left(self) -> bool:
        return self._waiting.empty()


class Client(ABC):
    """An SDK of one kind over an HTTP client.

    `ask` and `stream` return the text of the answer, or an awaitable of it where the flavour is asynchronous.

    Args:
        flavour: The HTTP library, and the way it is used.
        http_client: The HTTP client; None lets the SDK make its own.
        base_url: Of the vendor.
        retries: How often it tries again.
        timeout: Seconds; None leaves the SDK's own.

    Attributes:
        name: Its name in the ids of tests.
        records_content: Whether the record of its calls holds prompt and answer.
    """

    name: ClassVar[str]
    records_content: ClassVar[bool] = True

    def __init__(
        self, flavour: Flavour, http_client: Any, base_url: str, *, retries: int = 0, timeout: float | None = None
    ) -> None:
        self.flavour = flavour
        self.make(http_client, base_url, retries, {} if timeout is None else {"timeout": timeout})

    @classmethod
    def base_url(cls, vendors: Sandbox, route: str) -> str:
        """The address of a route, as this SDK wants it."""
        urls = {"gateway": vendors.gateway_url, "relay": vendors.relay_url, "openrouter": vendors.openrouter_url}
        return urls[route]

    @classmethod
    def own_http_client(cls, flavour: Flavour) -> Any:
        """The HTTP client it has without ours: None where it makes that itself."""
        return None

    @abstractmethod
    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        """Make the SDK's client."""

    @abstractmethod
    def ask(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        """Ask for the whole answer."""

    @abstractmethod
    def stream(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        """Ask for the answer in pieces."""

    @abstractmethod
    def close(self) -> None:
        """Close what the SDK made for itself."""

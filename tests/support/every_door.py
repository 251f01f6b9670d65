"""One call through each outbound door, written once: httpx, httpx2, requests and aiohttp."""

from __future__ import annotations

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kwai_middleware import Caller, Settings, aiohttp_middleware, bind_caller, requests_adapter
from tests.support.callers import settings
from tests.support.flavours import FLAVOURS, Flavour

__all__ = ["Answered", "Door", "door"]


@dataclass
class Answered:
    """What the app got.

    Attributes:
        status: Of the answer.
        headers: Of the answer, names in lower case.
        raw: The body, as it came over the wire.
        response: The library's own.
    """

    status: int
    headers: list[tuple[str, str]]
    raw: bytes
    response: Any


@dataclass
class Door(ABC):
    """One library, used in one way.

    Attributes:
        name: Of it.
        calls: What was handed over for records.
    """

    name: str
    calls: list[Any] = field(default_factory=list)

    def ask(
        self, url: str, who: Caller | None, content: Any = b'{"model":"m"}', headers: Any = None, **options: Any
    ) -> Answered:
        """Post to `url` for `who`, and read the answer to its end; `options` are settings."""
        sent = {"authorization": "Bearer app", "accept-encoding": "gzip", **(headers or {})}
        with bind_caller(who):
            return self._ask(url, content, sent, settings(**options))

    @property
    def records(self) -> list[Any]:
        """What becomes of the calls."""
        return [call.build() for call in self.calls]

    @abstractmethod
    def _ask(self, url: str, content: Any, headers: dict[str, str], given: Settings) -> Answered:
        """Post, and read the answer to its end."""

    def end(self) -> None:
        """Forget it all, and leave nothing open."""
        self.calls.clear()


class _HttpxDoor(Door):
    def __init__(self, flavour: Flavour) -> None:
        super().__init__(flavour.name)
        self.flavour = flavour

    def _ask(self, url: str, content: Any, headers: dict[str, str], given: Settings) -> Answered:
        flavour = self.flavour
        client = flavour.client(settings=given, deliver=self.calls.append)
        pieces = _pieces_async if flavour.asynchronous else _pieces
        content = pieces(content) if isinstance(content, list) else content
        try:
            response = flavour.open(client, url, content=content, headers=headers)
            raw = b"".join(flavour.chunks(response))
        finally:
            flavour.close(client)
        return Answered(
            response.status_code, [(n.lower(), v) for n, v in response.headers.multi_items()], raw, response
        )

    def end(self) -> None:
        super().end()
        self.flavour.end()


class _RequestsDoor(Door):
    def _ask(self, url: str, content: Any, headers: dict[str, str], given: Settings) -> Answered:
        content = _pieces(content) if isinstance(content, list) else content
        with requests_adapter.session(settings=given, deliver=self.calls.append) as client:
            response = client.post(url, data=content, headers=headers, stream=True)
            raw = b"".join(response.raw.stream(decode_content=False))
        return Answered(response.status_code, [(n.lower(), v) for n, v in response.raw.headers.items()], raw, response)


class _AiohttpDoor(Door):
    def _ask(self, url: str, content: Any, headers: dict[str, str], given: Settings) -> Answered:
        async def asked() -> Answered:
            made = aiohttp_middleware.session(settings=given, deliver=self.calls.append, auto_decompress=False)
            async with made as client:
                body = _pieces_async(content) if isinstance(content, list) else content
                response = await client.post(url, data=body, headers=headers)
                raw = await response.read()
            return Answered(response.status, [(n.lower(), v) for n, v in response.headers.items()], raw, response)

        with asyncio.Runner() as runner:
            return runner.run(asked(), context=contextvars.copy_context())


def _pieces(parts: list[bytes]) -> Iterator[bytes]:
    yield from parts


async def _pieces_async(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def _of_flavour(library: Any, transport: Any, asynchronous: bool) -> Callable[[], Door]:
    return lambda: _HttpxDoor(Flavour(library, transport, asynchronous=asynchronous))


DOORS: list[Any] = [
    *(pytest.param(_of_flavour(*flavour.values[0]), id=str(flavour.id)) for flavour in FLAVOURS),  # type: ignore[misc]  # pytest types the values as objects
    pytest.param(lambda: _RequestsDoor("requests"), id="requests"),
    pytest.param(lambda: _AiohttpDoor("aiohttp"), id="aiohttp"),
]


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    """Each outbound door, synchronous and asynchronous."""
    door: Door = request.param()
    yield door
    door.end()

"""httpx and httpx2, synchronous and asynchronous, behind one face: a test is written once and run four times."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from kwai_middleware import httpx2_transport, httpx_transport


class Flavour:
    """One library, used in one way."""

    def __init__(self, library: ModuleType, door: ModuleType, *, asynchronous: bool) -> None:
        self.library: Any = library
        self.door: Any = door
        self.asynchronous = asynchronous
        self._runner: asyncio.Runner | None = None

    @property
    def name(self) -> str:
        return f"{self.library.__name__}-{'async' if self.asynchronous else 'sync'}"

    @property
    def transport_class(self) -> Any:
        return self.door.AsyncKwaiTransport if self.asynchronous else self.door.KwaiTransport

    @property
    def plain_client_class(self) -> Any:
        return self.library.AsyncClient if self.asynchronous else self.library.Client

    @property
    def real_transport_class(self) -> Any:
        return self.library.AsyncHTTPTransport if self.asynchronous else self.library.HTTPTransport

    def client(self, **options: Any) -> Any:
        """The ready client of the door."""
        return (self.door.async_client if self.asynchronous else self.door.client)(**options)

    def around(self, inner: Any, *, client: dict[str, Any] | None = None, **options: Any) -> Any:
        """A plain client with our transport around `inner`."""
        return self.plain_client_class(transport=self.transport_class(inner, **options), **(client or {}))

    def answering(self, handler: Callable[[Any], Any], **options: Any) -> Any:
        """A client whose requests end in `handler`."""
        return self.around(self.library.MockTransport(handler), **options)

    def run(self, value: Any) -> Any:
        """The result of a call, awaited in today's context when it is awaitable."""
        if not inspect.isawaitable(value):
            return value

        async def awaited() -> Any:
            return await value

        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(awaited(), context=contextvars.copy_context())

    def body(self, parts: list[bytes]) -> Any:
        """The body of a response, as a stream of this kind."""

        async def parts_async() -> Any:
            for part in parts:
                yield part

        return parts_async() if self.asynchronous else iter(parts)

    def post(self, client: Any, url: str, **options: Any) -> Any:
        return self.run(client.post(url, **options))

    def send(self, client: Any, request: Any, **options: Any) -> Any:
        return self.run(client.send(request, **options))

    def open(self, client: Any, url: str, **options: Any) -> Any:
        """A response whose body has not been read."""
        return self.run(client.send(client.build_request("POST", url, **options), stream=True))

    def chunks(self, response: Any, *, at_most: int | None = None) -> list[bytes]:
        """The raw chunks of a response; the iteration is left after `at_most`."""
        if self.asynchronous:
            return self.run(self._chunks(response, at_most))
        received = []
        for chunk in response.iter_raw():
            received.append(chunk)
            if len(received) == at_most:
                break
        return received

    async def _chunks(self, response: Any, at_most: int | None) -> list[bytes]:
        received = []
        async for chunk in response.aiter_raw():
            received.append(chunk)
            if len(received) == at_most:
                break
        return received

    def read(self, response: Any) -> bytes:
        return self.run(response.aread() if self.asynchronous else response.read())

    def close(self, closable: Any) -> None:
        self.run(closable.aclose() if self.asynchronous else closable.close())

    def end(self) -> None:
        if self._runner is not None:
            self._runner.close()


FLAVOURS = [
    pytest.param((library, door, asynchronous), id=f"{library.__name__}-{'async' if asynchronous else 'sync'}")
    for library, door in ((httpx, httpx_transport), (httpx2, httpx2_transport))
    for asynchronous in (False, True)
]

SYNC_FLAVOURS = [flavour for flavour in FLAVOURS if "async" not in str(flavour.id)]
ASYNC_FLAVOURS = [flavour for flavour in FLAVOURS if "async" in str(flavour.id)]
HTTPX = [flavour for flavour in FLAVOURS if "httpx2" not in str(flavour.id)]
HTTPX2 = [flavour for flavour in FLAVOURS if "httpx2" in str(flavour.id)]


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """Each library, synchronous and asynchronous."""
    library, door, asynchronous = request.param
    flavour = Flavour(library, door, asynchronous=asynchronous)
    yield flavour
    flavour.end()

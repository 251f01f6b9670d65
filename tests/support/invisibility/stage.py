"""What a step works with: a client that is plain or wrapped, synchronous or asynchronous, behind one face."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from tests.support.flavours import Flavour
from tests.support.invisibility.describing import described
from tests.support.invisibility.server import ScriptServer

__all__ = ["BODY", "PLACE", "MakeClient", "Stage"]

BODY: Final = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
PLACE: Final = "v1"
"""The first part of the path of all model calls."""

_JSON: Final = [("Content-Type", "application/json")]


class MakeClient(Protocol):
    """Makes the client that a script is about."""

    def __call__(self, **options: Any) -> Any: ...


class Stage:
    """One step's view of the world.

    A step is written once, as a coroutine function: with a synchronous client nothing in it ever
    waits, so that it can be run to its end by hand.

    Args:
        flavour: The library, and how it is used.
        server: Where requests go.
        make: Makes the client.
        options: Of the client, unless a step says otherwise.
    """

    def __init__(self, flavour: Flavour, server: ScriptServer, make: MakeClient, options: dict[str, Any]) -> None:
        self.library = flavour.library
        self.asynchronous = flavour.asynchronous
        self.flavour = flavour
        self.server = server
        self.clients: list[Any] = []
        self._make = make
        self._options = options

    # Where to, and with what.

    @property
    def origin(self) -> str:
        return self.server.origin

    @property
    def host(self) -> dict[str, str]:
        """The header that a request made by hand lacks when its body is a stream."""
        return {"Host": self.origin.partition("//")[2]}

    @property
    def base(self) -> str:
        return f"{self.origin}/{PLACE}"

    @property
    def secure_base(self) -> str:
        return f"https://127.0.0.1:{self.server.secure_port}/{PLACE}"

    def url(self, do: str, *, base: str | None = None, **more: str) -> str:
        """The inference endpoint, where the server does `do`."""
        return f"{base or self.base}/chat/completions?{urlencode({'do': do} | more, safe=',/:')}"

    def elsewhere(self, do: str, **more: str) -> str:
        """Another path of the same server, which is never touched."""
        return f"{self.origin}/models?{urlencode({'do': do} | more, safe=',/:')}"

    def client(self, **options: Any) -> Any:
        """The client that the script is about, closed when the step is over."""
        client = self._make(**(self._options | options))
        self.clients.append(client)
        return client

    def timeout(self, seconds: float = 10, **more: float) -> Any:
        return self.library.Timeout(seconds, **more)

    # One word for both kinds of client.

    async def settle(self, value: Any) -> Any:
        """The value, awaited where it has to be."""
        return await value if inspect.isawaitable(value) else value

    async def post(self, client: Any, do: str, **options: Any) -> Any:
        """A model call: its answer, read to the end."""
        return await self.settle(client.post(self.url(do), **_with_body(options)))

    def request(self, client: Any, do: str, **options: Any) -> Any:
        """A model call that has not been sent."""
        return client.build_request("POST", self.url(do), **_with_body(options))

    async def send(self, client: Any, request: Any, **options: Any) -> Any:
        return await self.settle(client.send(request, **options))

    async def open(self, client: Any, do: str, **options: Any) -> Any:
        """A model call whose answer has not been read."""
        return await self.send(client, self.request(client, do, **options), stream=True)

    def stream(self, client: Any, do: str, **options: Any) -> _Within:
        """A model call as a context manager."""
        return _Within(client.stream("POST", self.url(do), **_with_body(options)))

    def within(self, thing: Any) -> _Within:
        """Any context manager, of either kind."""
        return _Within(thing)

    async def do(self, thing: Any, name: str, *arguments: Any) -> Any:
        """Call `read`, `close` or the like, or their asynchronous twin."""
        return await self.settle(getattr(thing, f"a{name}" if self.asynchronous else name)(*arguments))

    def iterate(self, response: Any, how: str, *arguments: Any, **options: Any) -> _Steps:
        """Begin `iter_raw`, `iter_lines` and so on."""
        return _Steps(getattr(response, f"a{how}" if self.asynchronous else how)(*arguments, **options))

    def upload(self, parts: Iterable[Any], error: Exception | None = None) -> Any:
        """A request's body as a generator, which ends with `error` when there is one."""

        def generated() -> Any:
            yield from parts
            if error is not None:
                raise error

        async def generated_async() -> Any:
            for part in parts:
                yield part
            if error is not None:
                raise error

        return generated_async() if self.asynchronous else generated()

    def hook(self, look: Callable[[Any], Any]) -> Any:
        """An event hook of the right kind."""

        async def look_async(thing: Any) -> None:
            look(thing)

        return look_async if self.asynchronous else look

    async def outcome(self, action: Callable[[], Any]) -> Any:
        """What an action returns or raises."""
        try:
            return described(await self.settle(action()))
        except Exception as error:  # noqa: BLE001 - that it raises, and what, is what is to be compared
            return described(error)


class _Within:
    """A context manager of either kind, entered with `async with`."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._kind = "a" if hasattr(manager, "__aenter__") else ""

    async def __aenter__(self) -> Any:
        entered = getattr(self._manager, f"__{self._kind}enter__")()
        return await entered if self._kind else entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        left = getattr(self._manager, f"__{self._kind}exit__")(kind, error, traceback)
        return await left if self._kind else left


class _Steps:
    """An iterator of either kind, gone through by hand or with `async for`."""

    def __init__(self, iterator: Any) -> None:
        self.iterator = iterator

    def __aiter__(self) -> _Steps:
        return self

    async def __anext__(self) -> Any:
        if hasattr(self.iterator, "__anext__"):
            return await self.iterator.__anext__()
        try:
            return next(self.iterator)
        except StopIteration:
            raise StopAsyncIteration from None

    async def rest(self) -> list[Any]:
        """All that is still to come."""
        return [part async for part in self]

    async def close(self) -> None:
        """End the iteration before its time."""
        if hasattr(self.iterator, "aclose"):
            await self.iterator.aclose()
        else:
            self.iterator.close()


def _with_body(options: dict[str, Any]) -> dict[str, Any]:
    if {"content", "data", "files", "json"}.isdisjoint(options):
        return {"content": BODY} | options | {"headers": [*_JSON, *_pairs(options.get("headers"))]}
    return options


def _pairs(headers: Any) -> list[tuple[str, str]]:
    return list(headers.items()) if isinstance(headers, dict) else list(headers or ())

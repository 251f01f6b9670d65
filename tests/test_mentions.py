"""Names of doors in bodies that are no JSON object: found wherever they stand, and the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from kwai_middleware import aiohttp_middleware, httpx2_transport, httpx_transport
from kwai_middleware._context import bind_caller
from kwai_middleware._outbound.mentions import mentions_door, mentions_door_async
from kwai_middleware._pace import WINDOW
from tests.support.callers import GATEWAY, caller, settings

_NAME = b"credential_override"
_SPELLINGS = {
    "plain": _NAME,
    "as a form has it": b"".join(b"%%%02X" % each for each in _NAME),
    "as JSON has it": b"".join(b"\\u%04x" % each for each in _NAME),
    "escaped twice": b"".join(b"\\\\\\u%04x" % each for each in _NAME),
    "UTF-32": _NAME.decode().encode("utf-32-be"),
}


@pytest.mark.parametrize("spelled", _SPELLINGS.values(), ids=_SPELLINGS.keys())
def test_a_name_is_found_on_both_sides_of_where_a_window_ends(spelled: bytes) -> None:
    """A body is looked into window by window, and a name may begin in one and end in the next, however it is spelt."""
    bodies = [b"x" * (WINDOW - inside) + spelled + b"x" * 300 for inside in range(len(spelled) + 1)]
    assert all(map(mentions_door, bodies))
    assert asyncio.run(mentions_door_async(bodies[7]))


def test_a_name_is_found_though_windows_of_nothing_stand_in_it() -> None:
    """What a careless decoder skips may be long, and so may be what escapes an escape."""
    for between in (b"\x00" * 3 * WINDOW, b"\xff" * WINDOW):
        assert mentions_door(_NAME[:5] + between + _NAME[5:])
    assert mentions_door(b"x" * 9 + b"\\" * 3 * WINDOW + b"u0063" + _NAME[1:])


def test_what_is_no_name_is_not_found() -> None:
    """The halves of a name in two windows that something stands between are two words."""
    for between in (b" ", b"\\", b"x" * WINDOW):
        assert not mentions_door(b"x" * (WINDOW - 10) + _NAME[:10] + between + _NAME[10:])
    assert [False, True] == [mentions_door(b"x" * WINDOW + b"models", payers=payers) for payers in (False, True)]


_WINDOWS = 40
_TURNS = _WINDOWS // 4


class _Arrived(Exception):
    """The request has come to what sends."""


async def _turns_of_others(send: Callable[[Callable[[], None]], Awaitable[object]]) -> int:
    """How often another task had its turn before the request came to what sends."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    seen: list[int] = []
    task = asyncio.create_task(others())
    await asyncio.sleep(0)
    with bind_caller(caller()), pytest.raises(_Arrived):
        await send(lambda: seen.append(turns))
    task.cancel()
    return seen[0] - 1


_URL = GATEWAY.replace("/chat/completions", "/audio/transcriptions")
_UPLOAD = b"\xff" * WINDOW * _WINDOWS


@pytest.mark.parametrize(("library", "door"), [(httpx, httpx_transport), (httpx2, httpx2_transport)])
def test_other_tasks_go_on_while_an_upload_is_looked_into(library: Any, door: ModuleType) -> None:
    """To look for names in an upload of many megabytes takes a second, for which no other request may wait."""

    async def send(arrived: Callable[[], None]) -> None:
        def handler(request: Any) -> None:
            arrived()
            raise _Arrived

        transport = door.AsyncKwaiTransport(
            library.MockTransport(handler), settings=settings(), deliver=lambda call: None
        )
        async with library.AsyncClient(transport=transport) as client:
            await client.post(_URL, files={"file": ("speech.mp3", _UPLOAD)})

    assert _TURNS <= asyncio.run(_turns_of_others(send))


def test_other_tasks_go_on_while_an_upload_of_aiohttp_is_looked_into() -> None:
    """The same where the form is aiohttp's."""

    async def send(arrived: Callable[[], None]) -> None:
        async def inside(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> Any:
            arrived()
            raise _Arrived

        ours = aiohttp_middleware.KwaiMiddleware(settings=settings(), deliver=lambda call: None)
        form = aiohttp.FormData()
        form.add_field("file", _UPLOAD, filename="speech.mp3", content_type="audio/mpeg")
        async with aiohttp.ClientSession(middlewares=(ours, inside)) as session:
            await session.post(_URL, data=form)

    assert _TURNS <= asyncio.run(_turns_of_others(send))

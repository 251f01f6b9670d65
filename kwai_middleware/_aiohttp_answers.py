"""An answer of aiohttp that no server gave."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final, cast

from aiohttp import ClientRequest, ClientResponse, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.helpers import TimerNoop
from aiohttp.http import HttpVersion11, RawResponseMessage
from multidict import CIMultiDict, CIMultiDictProxy

__all__ = ["answer"]

# Later versions ask how much was sent.
_WRITER: Final[dict[str, Any]] = (
    {"stream_writer": SimpleNamespace(output_size=0)}
    if "stream_writer" in inspect.signature(ClientResponse).parameters
    else {}
)


class _Said(BaseProtocol):
    """In place of a connection to a server: what it says is known."""

    upgraded = False

    def __init__(self, request: ClientRequest, said: Mapping[str, Any]) -> None:
        super().__init__(request.loop)
        headers: dict[str, str] = said["headers"]
        status = HTTPStatus(said["status_code"])
        raw = tuple((name.encode(), value.encode()) for name, value in headers.items())
        shown = CIMultiDictProxy(CIMultiDict(headers))
        self._message = RawResponseMessage(HttpVersion11, status, status.phrase, shown, raw, False, None, False, False)
        self._content = StreamReader(self, 2**16, loop=request.loop)
        self._content.feed_data(said["content"])
        self._content.feed_eof()

    async def read(self) -> tuple[RawResponseMessage, StreamReader]:
        return self._message, self._content


async def answer(request: ClientRequest, said: Mapping[str, Any]) -> ClientResponse:
    """Return a response to `request` with this `status_code`, these `headers` and this `content`."""
    response = request.response_class(
        request.method,
        request.original_url,
        writer=cast("Any", None),
        continue100=None,
        timer=TimerNoop(),
        request_info=request.request_info,
        traces=[],
        loop=request.loop,
        session=request.session,
        **_WRITER,
    )
    connection: Any = SimpleNamespace(protocol=_Said(request, said), release=_nothing, close=_nothing)
    return await response.start(connection)


def _nothing() -> None:
    """There is nothing to give back."""

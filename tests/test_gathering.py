"""Bodies that come in pieces and are read before they go out: what arrives is what would have arrived without us."""

from __future__ import annotations

import json
from typing import Any

import h11
import httpx
import httpx2
import pytest

from kwai_middleware._context import bind_caller
from tests.support.callers import caller, settings
from tests.support.flavours import Flavour
from tests.support.raw_server import Connection, raw_server
from tests.support.wired import wired

_PROTOCOL_ERRORS = (h11.LocalProtocolError, httpx.LocalProtocolError, httpx2.LocalProtocolError)


def test_a_buffer_that_is_filled_again_is_read_each_time(flavour: Flavour) -> None:
    """Uploads without copies hand out the same memory with other bytes in it."""

    def pieces() -> Any:
        buffer = bytearray(4)
        for part in (b'{"mo', b'del"', b':"m"', b"}"):
            buffer[: len(part)] = part
            yield memoryview(buffer)[: len(part)]

    async def async_pieces() -> Any:
        for piece in pieces():
            yield piece

    sent = wired(flavour, caller(), request={"content": async_pieces() if flavour.asynchronous else pieces()})
    assert "m" == json.loads(sent.content)["model"]
    sent = wired(flavour, None, request={"content": async_pieces() if flavour.asynchronous else pieces()})
    assert b'{"model":"m"}' == sent.content


@pytest.mark.parametrize("who", [caller(), None], ids=["a key", "nobody"])
@pytest.mark.parametrize("length", ["12", "14"])
def test_a_wrong_length_is_an_error_as_without_us(flavour: Flavour, who: Any, length: str) -> None:
    """A file that was cut while it was read does not go out as if it were whole."""

    def answer(connection: Connection) -> None:
        connection.request()

    with raw_server(answer) as server:
        inner = flavour.real_transport_class()
        client = flavour.around(inner, settings=settings(base_url=f"{server.url}/api"), deliver=lambda call: None)
        body = flavour.body([b'{"model":', b'"m"}'])
        with bind_caller(who), pytest.raises(_PROTOCOL_ERRORS, match="Content-Length"):
            flavour.post(client, f"{server.url}/api/chat/completions", content=body, headers={"content-length": length})
        flavour.close(client)

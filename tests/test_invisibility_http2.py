"""The same with HTTP/2: many streams on one connection, and a header compression that likes to talk."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from kwai_middleware._context import bind_caller
from tests.support.callers import caller, key_of
from tests.support.flavours import Flavour
from tests.support.invisibility.cells import Cell, maker, options_of, settings_for
from tests.support.invisibility.http2_server import http2_server
from tests.support.invisibility.running import by_hand
from tests.support.invisibility.script import HTTP2_SCRIPT
from tests.support.invisibility.server import script_server
from tests.support.invisibility.stage import Stage
from tests.support.invisibility.world import World, certificates

pytestmark = pytest.mark.usefixtures("unmeasured")
"""To measure coverage would take as long again, and nothing here is not seen by other tests as well."""

CELLS = (Cell("other", True, "around"), Cell("direct", True, "ready"), Cell("gateway", True, "around"))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    serving, trusting = certificates()
    with http2_server(serving) as server:
        yield World(server, trusting, HTTP2_SCRIPT, http2=True)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_wrapped_client_is_as_a_plain_one(flavour: Flavour, world: World, cell: Cell) -> None:
    """Whatever can be seen of more than 200 calls, on streams that end well, badly, late or not at all."""
    assert {} == world.compare(flavour, cell)


@pytest.mark.parametrize("kind", ["direct", "gateway"])
@pytest.mark.parametrize("http2", [True, False])
def test_no_key_is_logged(flavour: Flavour, caplog: pytest.LogCaptureFixture, kind: str, http2: bool) -> None:
    """With every logger of the process at its loudest, and the transports' own words in the log."""
    serving, trusting = certificates()
    cell = Cell(kind, True, "ready")
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    try:
        with (http2_server if http2 else script_server)(serving) as server:
            make = maker(flavour, cell, settings_for(cell, server.origin))
            stage = Stage(flavour, server, make, options_of(flavour, trusting) | {"http2": http2})
            client = stage.client()

            async def calls() -> list[int]:
                return [(await stage.post(client, do)).status_code for do in ("ok", "redirect-307", "status-500I")]

            with bind_caller(caller()):
                assert [200, 307, 500] == (flavour.run(calls()) if flavour.asynchronous else by_hand(calls()))
            flavour.close(client)
            keys = [each for each in server.arrived if key_of("acme").encode() in each.head + each.body]
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert 3 == len(keys)
    assert "send_request_headers" in caplog.text
    assert ("http2" if http2 else "http11") in {record.name.rpartition(".")[2] for record in caplog.records}
    assert key_of("acme") not in caplog.text

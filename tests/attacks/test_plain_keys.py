"""A function of the app that answers with keys as plain texts: what is raised for it leads to none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kwai_middleware import Caller, KeyResolver, first_of
from kwai_middleware.errors import KeysUnavailable
from tests.apps.doors import DOORS, Door
from tests.support.callers import key_of
from tests.support.exposure import exposures
from tests.support.flavours import Flavour
from tests.support.looked_up import call

KEY = key_of("plain")


def plain(_: object) -> Any:
    return [KEY]


def bare(_: object) -> Any:
    return KEY


async def plain_async(_: object) -> Any:
    await asyncio.sleep(0)
    return [KEY]


async def bare_async(_: object) -> Any:
    return KEY


FUNCTIONS: list[Callable[[object], Any]] = [plain, bare, plain_async, bare_async, lambda _: plain_async(_)]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_from_a_vault(flavour: Flavour, function: Any) -> None:
    """Neither the refusal nor what it comes from has a frame with the key."""
    with pytest.raises(KeysUnavailable) as refused:
        call(flavour, Caller(identifier="acme"), KeyResolver(function))
    assert "expected a list of Credential" in str(refused.value.__cause__)
    assert [] == exposures(refused.value, KEY, below="call")


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("combined", [False, True])
def test_from_a_request(door: Door, function: Any, combined: bool) -> None:
    """Under either middleware, with one source of keys and with several."""
    with pytest.raises(TypeError, match="credentials: expected") as wrong:
        door.ask(credentials=first_of(function, function) if combined else function)
    assert [] == exposures(wrong.value, KEY, below="ask")

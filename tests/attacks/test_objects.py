"""Whatever a program does with an object that holds a key, but asking a `Secret` for it, does not show the key."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import dataclasses
import inspect
import json
import logging
import pickle
import pprint
import reprlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import orjson
import pydantic
import pytest
import structlog
from fastapi.encoders import jsonable_encoder
from sentry_sdk.serializer import serialize
from werkzeug.debug.repr import debug_repr

import kwai_middleware as kwai
from kwai_middleware._context import current_slot
from kwai_middleware.httpx_transport import KwaiTransport
from tests.apps.doors import ASGIDoor, Seen, WSGIDoor
from tests.support.callers import OPENROUTER, settings

KEY = "sk-or-v1-" + "c0ffee42" * 8
SECRET = "between-proxy-and-app-" + "c0ffee42"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def gathered() -> dict[str, Any]:
    """One object of each kind that holds a key, or has held one, after calls with keys from a header and a vault."""
    found: dict[str, Any] = {}
    calls: list[Any] = []
    credential = kwai.Credential(api_key=kwai.Secret(KEY))
    resolver = kwai.KeyResolver(lambda caller: [credential])
    inner = httpx.MockTransport(lambda request: httpx.Response(200, json={"choices": []}))
    transport = KwaiTransport(inner, settings=settings(api_key=KEY), deliver=calls.append)
    client = httpx.Client(transport=transport)
    requests: list[Any] = []

    def credentials(request: kwai.InboundRequest) -> list[kwai.Credential]:
        requests.append(request)
        key = request.secret("x-openrouter-key")
        return [] if key is None else [kwai.Credential(api_key=key)]

    headers = [("x-customer-id", "acme"), ("x-openrouter-key", KEY), ("x-kwai-proxy", SECRET)]
    identity = kwai.HeaderIdentity(proxy_secret=SECRET)
    for door in (ASGIDoor(), WSGIDoor()):
        seen = door.ask(headers, identify=identity, credentials=credentials)
        found[f"seen by {door.name}"] = Seen(caller=seen.caller, app_headers=seen.app_headers, request=seen.request)
        found[f"request of {door.name}"] = requests[-1]
        found[f"middleware of {door.name}"] = door.wrap(Seen(), identify=identity, credentials=credentials)
    from_header = kwai.Caller(identifier="acme", credentials=(credential,))
    for name, who, more in (
        ("header", from_header, {}),
        ("vault", kwai.Caller(identifier="acme"), {"credentials": resolver}),
    ):
        binding = kwai.bind_caller(who, **more)
        with binding:
            response = client.post(OPENROUTER, json=BODY)
            found |= {f"binding, {name}": binding, f"slot, {name}": current_slot(), f"caller, {name}": who}
            found |= {f"origins, {name}": kwai.explain(), f"unsettled, {name}": current_slot().unsettled}
        found |= {f"response, {name}": response, f"pending, {name}": calls[-1], f"call, {name}": calls[-1].build()}
        assert calls[-1].secrets == (kwai.Secret(KEY),)
    cache: Any = resolver._cache
    flight, _ = cache.board(kwai.Caller(identifier="b"))
    cache.landed(kwai.Caller(identifier="b"), flight, (credential,), 60.0, 0.0)
    found |= {"credential": credential, "secret": credential.api_key, "resolver": resolver, "cache": cache}
    found |= {"flight": flight, "kept": cache._kept, "identity": identity, "settings": settings(api_key=KEY)}
    found |= {"transport": transport, "client": client, "header credentials": kwai.HeaderCredentials()}
    found["delivery"] = kwai.Delivery(settings(api_key=KEY, spool="memory:"))
    return found


@dataclasses.dataclass
class Holder:
    """Something of an app's."""

    held: Any


class Model(pydantic.BaseModel):
    """The same for pydantic."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    held: Any


def attributes(held: Any) -> dict[str, Any]:
    """What careless encoders look for, as the default of `json`."""
    if isinstance(held, kwai.Secret):
        raise TypeError(f"{held} cannot be encoded")
    found = dict(getattr(held, "__dict__", {}))
    for kind in type(held).__mro__:
        slots = getattr(kind, "__slots__", ())
        found |= {name: getattr(held, name, None) for name in ((slots,) if isinstance(slots, str) else slots)}
    return {name: repr(value) for name, value in found.items()}


def logged(held: Any, formatter: logging.Formatter) -> str:
    """A record of standard logging that has the object as argument and as an attribute."""
    record = logging.LogRecord("app", logging.INFO, __file__, 1, "held %s %r", (held, held), None)
    record.held = held
    return formatter.format(record) + repr(vars(record))


def raised(held: Any) -> str:
    """An exception about the object, from a frame that has it, with all locals."""
    try:
        raise RuntimeError(f"about {held}", held)
    except RuntimeError as error:
        error.add_note(repr(held))
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


SHOWN: dict[str, Callable[[Any], Any]] = {
    "repr": repr,
    "str": str,
    "format": "{0} {0!r} {0!s} {0!a}".format,
    "percent": lambda held: "%s %r" % (held, held),  # noqa: UP031 - it is what is tested
    "pprint": pprint.pformat,
    "reprlib": reprlib.repr,
    "in containers": lambda held: repr([{"a": (held, {"b": held})}]),
    "dataclass": lambda held: f"{Holder(held)} {dataclasses.asdict(Holder(held))}",
    "asdict": dataclasses.asdict,
    "vars": vars,
    "attributes": attributes,
    "members": lambda held: [] if isinstance(held, kwai.Secret) else inspect.getmembers(held),
    "signature": lambda held: inspect.signature(type(held)),
    "dir": dir,
    "json": json.dumps,
    "json, str": lambda held: json.dumps(held, default=str),
    "json, vars": lambda held: json.dumps(held, default=vars),
    "json, attributes": lambda held: json.dumps(held, default=attributes),
    "orjson": orjson.dumps,
    "orjson, str": lambda held: orjson.dumps(held, default=str),
    "msgspec": msgspec.json.encode,
    "msgspec, repr": lambda held: msgspec.json.encode(held, enc_hook=repr),
    "msgpack": msgspec.msgpack.encode,
    "builtins": msgspec.to_builtins,
    "msgspec, asdict": msgspec.structs.asdict,
    "pydantic": lambda held: pydantic.TypeAdapter(Any).dump_json(held),
    "pydantic, fallback": lambda held: pydantic.TypeAdapter(Any).dump_json(held, fallback=repr),
    "pydantic model": lambda held: f"{Model(held=held)!r} {Model(held=held).model_dump()}",
    "fastapi": jsonable_encoder,
    "pickle": pickle.dumps,
    "pickle, text": lambda held: pickle.dumps(held, 0),
    "copy": lambda held: repr(copy.copy(held)),
    "deepcopy": lambda held: repr(copy.deepcopy(held)),
    "structlog json": lambda held: structlog.processors.JSONRenderer()(None, "", {"held": held}),
    "structlog console": lambda held: structlog.dev.ConsoleRenderer()(None, "", {"held": held}),
    "structlog key=value": lambda held: structlog.processors.KeyValueRenderer()(None, "", {"held": held}),
    "logging": lambda held: logged(held, logging.Formatter("%(message)s %(held)s")),
    "sentry": lambda held: serialize({"extra": {"held": held}}, max_value_length=1_000_000),
    "werkzeug": debug_repr,
    "traceback": raised,
    "task": lambda held: repr(asyncio.run(named(held))),
    "bytes": bytes,
    "iteration": list,
    "hash": hash,
}


async def named(held: Any) -> Any:
    """A task about the object."""
    task = asyncio.create_task(asyncio.sleep(0), name=f"for {held}")
    await task
    return task


def told(error: BaseException) -> str:
    """What an error reporter sends of an exception; of the encoder's own frames no locals, which are without end."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    parts = [f"{error!r} {error}"]
    ours = [frame.f_locals for frame in frames if frame.f_globals.get("__name__", "").startswith("kwai_middleware")]
    for value in (value for names in ours for value in names.values()):
        with contextlib.suppress(Exception):  # what is half made cannot be shown
            parts.append(repr(value))
    return " ".join(parts)


def holds_key(shown: object) -> bool:
    """Say whether a text or bytes have one of the keys, plain or in base64."""
    text = shown.decode("latin-1") if isinstance(shown, bytes) else str(shown)
    spellings = [base64.b64encode(key.encode())[4:-4].decode() for key in (KEY, SECRET)]
    return "c0ffee42" in text or any(spelled in text for spelled in spellings)


@pytest.fixture(scope="module")
def objects() -> Iterator[dict[str, Any]]:
    """All of them; made once."""
    found = gathered()
    yield found
    found["client"].close()
    found["delivery"].close()


@pytest.mark.parametrize("way", SHOWN)
def test_no_object_shows_its_key(objects: dict[str, Any], way: str) -> None:
    """Printing, logging, encoding, copying or pickling shows a mask, or fails with a text that has no key."""
    shows = []
    for name, held in objects.items():
        try:
            shown = SHOWN[way](held)
        except Exception as error:  # noqa: BLE001 - each encoder refuses in its own way
            shown = told(error)
        if holds_key(shown):
            shows.append(name)
    assert [] == shows


def test_the_search_finds_what_is_shown(objects: dict[str, Any]) -> None:
    """A key that is taken out of its secret is seen, in each spelling."""
    opened = objects["secret"].reveal()
    assert all(
        holds_key(shown) for shown in (opened, opened.encode(), {"a": opened}, base64.b64encode(opened.encode()))
    )
    assert len(objects) > 25

"""`/sandbox/`: what there is to try, what arrived, and how the vendors shall behave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kwai_middleware.sandbox.accounts import KeyFacts
from kwai_middleware.sandbox.entries import CallEntry, LogEntry, LogRequestEntry
from kwai_middleware.sandbox.journal import Entry, EntryT, Journal
from kwai_middleware.sandbox.json_types import json_or_none, object_or_empty
from kwai_middleware.sandbox.parameters import PRECEDENCES, is_precedence
from kwai_middleware.sandbox.scenarios import scenarios
from kwai_middleware.sandbox.state import BULK_PER_MINUTE, LogsMode, SandboxState

__all__ = ["control_routes"]

_LONGEST_WAIT: Final = 60.0
_WORDS: Final = ("ok", "slow", "hang", "reset", "garbage", "cut", "huge")
_REGISTERED: Final = ("key", *KeyFacts.__struct_fields__)
_MODES: Final = "ok, slow, hang, reset, garbage, cut, huge, or a status from 300 to 599"


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /sandbox/logs-mode`."""

    mode: str | int = "ok"
    times: int | None = None
    seconds: float = 1.0
    retry_after: int | None = 1
    bulk_per_minute: int = BULK_PER_MINUTE
    poison: str | None = None
    unwanted: str | None = None


class _Registered(KeyFacts, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of `PUT /sandbox/keys`."""

    key: str


def control_routes(state: SandboxState, endpoints: Mapping[str, Iterable[str]]) -> list[Route]:
    """Return the routes under `/sandbox`.

    Args:
        state: What they show and change.
        endpoints: Paths of the models' endpoints, by vendor.
    """

    async def index(request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        return _json(
            {
                "gateway": f"{base}/api/",
                "relay": f"{base}/api/openrouter/v1",
                "openrouter": f"{base}/api/v1",
                "endpoints": {vendor: [base + path for path in paths] for vendor, paths in endpoints.items()},
                "messages": {"gateway": f"{base}/api/anthropic", "openrouter": f"{base}/api"},
                "request_logs": [f"{base}/api/request-logs/{name}" for name in ("", "create/", "bulk/")],
                "calls": f"{base}/sandbox/calls?wait=1&customer=acme",
                "logs": f"{base}/sandbox/logs?wait=1&customer=acme",
                "log_requests": f"{base}/sandbox/log-requests",
                "reset": f"POST or DELETE {base}/sandbox/reset",
                "logs_mode": f'PUT {base}/sandbox/logs-mode {{"mode": "500", "times": 2}}; mode: {_MODES}',
                "precedence": f'PUT {base}/sandbox/precedence {{"precedence": "2026-06"}}; {" or ".join(PRECEDENCES)}',
                "filters": {
                    "calls": CallEntry.filters,
                    "logs": LogEntry.filters,
                    "log_requests": LogRequestEntry.filters,
                },
                "keys": {
                    "...-dead": 401,
                    "...-broke": 402,
                    "...-slow": "429 with Retry-After",
                    "...-spent": "403: has spent its limit",
                    "...-management": "403: calls no model",
                    "any other": f"good, unless PUT {base}/sandbox/keys says otherwise: {', '.join(_REGISTERED)}",
                },
                "key": f"{base}/api/v1/key",
                "authorization": f"{base}/auth",
                "models": {scenario.model: scenario.description for scenario in scenarios()},
            }
        )

    async def calls(request: Request) -> Response:
        return await _entries(request, state, "calls", state.calls, CallEntry)

    async def logs(request: Request) -> Response:
        return await _entries(request, state, "logs", state.logs, LogEntry)

    async def log_requests(request: Request) -> Response:
        return await _entries(request, state, "log_requests", state.log_requests, LogRequestEntry)

    async def reset(_: Request) -> Response:
        state.reset()
        return Response(status_code=204)

    async def logs_mode(request: Request) -> Response:
        if request.method == "PUT":
            try:
                state.logs_mode = _mode(msgspec.json.decode(await request.body(), type=_Asked))
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                return _json({"detail": f"logs-mode: {error}"}, 400)
        mode = state.logs_mode
        return _json({name: getattr(mode, name) for name in LogsMode.__slots__})

    async def precedence(request: Request) -> Response:
        if request.method == "PUT":
            asked = object_or_empty(json_or_none(await request.body())).get("precedence")
            if not is_precedence(asked):
                return _json({"detail": f"precedence: {' or '.join(PRECEDENCES)}"}, 400)
            state.precedence = asked
        return _json({"precedence": state.precedence})

    async def keys(request: Request) -> Response:
        try:
            registered = msgspec.json.decode(await request.body(), type=_Registered)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _json({"detail": f"keys: {error}"}, 400)
        state.keys.remember(registered.key)
        state.accounts.register(registered.key, registered)
        return Response(status_code=204)

    return [
        Route("/", index, methods=["GET"]),
        Route("/sandbox", index, methods=["GET"]),
        Route("/sandbox/", index, methods=["GET"]),
        Route("/sandbox/calls", calls, methods=["GET"]),
        Route("/sandbox/logs", logs, methods=["GET"]),
        Route("/sandbox/log-requests", log_requests, methods=["GET"]),
        Route("/sandbox/reset", reset, methods=["POST", "DELETE"]),
        Route("/sandbox/logs-mode", logs_mode, methods=["GET", "PUT"]),
        Route("/sandbox/keys", keys, methods=["PUT"]),
        Route("/sandbox/precedence", precedence, methods=["GET", "PUT"]),
    ]


def _mode(asked: _Asked) -> LogsMode:
    mode = str(asked.mode)
    is_status = mode.isascii() and mode.isdecimal() and 300 <= int(mode[:4]) <= 599
    if mode not in _WORDS and not is_status:
        raise ValueError(f"mode: {_MODES}")
    if asked.times is not None and asked.times < 1:
        raise ValueError("times: at least 1, or null for ever")
    if "" in (asked.poison, asked.unwanted):
        raise ValueError("poison, unwanted: some text of a record, or null for none")
    limits = (asked.seconds, asked.retry_after, asked.bulk_per_minute)
    return LogsMode(mode, asked.times, *limits, asked.poison, asked.unwanted)


async def _entries(
    request: Request,
    state: SandboxState,
    name: Literal["calls", "logs", "log_requests"],
    journal: Journal[EntryT],
    kind: type[Entry],
) -> Response:
    filters = dict(request.query_params)
    try:
        at_least = int(filters.pop("wait", "0"))
        seconds = min(max(float(filters.pop("timeout", "10")), 0.0), _LONGEST_WAIT)
    except ValueError:
        return _json({"detail": "wait: a whole number; timeout: seconds"}, 400)
    if unknown := [filter_name for filter_name in filters if filter_name not in kind.filters]:
        return _json({"detail": f"unknown filter {unknown[0]!r}; there are {', '.join(kind.filters)}"}, 400)
    if at_least > 0:
        await journal.wait(filters, at_least, seconds)
    entries = journal.matching(filters)
    shown = [entry.shown(state.keys) for entry in entries]
    return _json({"count": len(shown), "evicted": journal.evicted, name: shown})


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.format(msgspec.json.encode(value)) + b"\n", status, media_type="application/json")

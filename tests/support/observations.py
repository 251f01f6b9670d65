"""Observations made by hand: what a transport would have seen of one call."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._outbound.attempts import Attempt
from kwai_middleware._outbound.budget import Reservation
from kwai_middleware._outbound.observation import Ending, Observation
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._secret import Secret
from kwai_middleware._unsettled import NO_ORIGINS

__all__ = ["CALLER", "CREDENTIAL", "JSON", "STREAM", "observed", "stream_of"]

JSON = ((b"Content-Type", b"application/json"),)
STREAM = ((b"Content-Type", b"text/event-stream; charset=utf-8"),)
CREDENTIAL = Credential(api_key=Secret("sk-or-v1-the-key-of-acme"))
CALLER = Caller(
    identifier="acme",
    name="Acme & Söhne",
    email="ops@acme.example",
    group="holding",
    thread="chat-7",
    metadata={"plan": "gold", "seats": 12, "trial": False, "outcome": "theirs", "_hidden": "yes"},
    credentials=(CREDENTIAL,),
)
MILLISECOND = 1_000_000


def stream_of(*chunks: dict[str, Any] | str) -> bytes:
    """Return chunks as the events of a stream; a text is an event's data as it is."""
    return b"".join(
        b"data: " + (chunk if isinstance(chunk, str) else json.dumps(chunk)).encode() + b"\n\n" for chunk in chunks
    )


def observed(
    body: bytes | Iterable[bytes] = b"",
    *,
    request: dict[str, Any] | bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = JSON,
    status: int | None = 200,
    ending: Ending = Ending.END,
    endpoint: Endpoint | None = None,
    caller: Caller | None = CALLER,
    credential: Credential | None = CREDENTIAL,
    **more: Any,
) -> Observation:
    """Return an observation that started at second 1; its chunks came 10 ms apart, its end 1 s later."""
    chunks = (body,) if isinstance(body, bytes) else tuple(body)
    if request is None:
        request = {"model": "openai/gpt-5", "messages": [{"role": "user", "content": "Hi"}]}
    members: dict[str, Any] = {
        "endpoint": endpoint or Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/chat/completions"),
        "caller": caller,
        "credential": credential,
        "origins": NO_ORIGINS,
        "app_credentials": (),
        "billed_to": "caller",
        "capture": "full",
        "request_body": request if isinstance(request, bytes) else json.dumps(request).encode(),
        "request_kept": True,
        "started_at": 1_763_875_740.5,
        "started": 1000 * MILLISECOND,
        "answered": 1005 * MILLISECOND,
        "ended": 2000 * MILLISECOND,
        "status": status,
        "response_headers": headers,
        "chunks": chunks,
        "arrivals": tuple((1010 + 10 * place) * MILLISECOND for place in range(len(chunks))),
        "gap_after": None,
        "decoded": False,
        "ending": ending,
        "error": None,
        "reservation": Reservation(1 << 30),
        "trace_id": "trace-1",
        "attempt": Attempt("call-1", 2),
    }
    return Observation(**(members | more))

"""Asks through the OpenAI SDK of before httpx2 for a customer without a key, and prints what the app sees."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import openai

from kwai_middleware import Caller, Settings, bind_caller, httpx_transport
from kwai_middleware._notices import counts

MESSAGES: Any = [{"role": "user", "content": "one"}]


def main(base_url: str) -> None:
    seen: dict[str, Any] = {"version": openai.__version__}
    for refuse in ("response", "raise"):
        seen[refuse] = {kind: _seen(base_url, refuse, kind) for kind in ("sync", "async")}
    sys.stdout.write(json.dumps(seen))


def _seen(base_url: str, refuse: Any, kind: str) -> dict[str, Any]:
    before = counts().get("refused_missing_credential", 0)
    options: dict[str, Any] = {"settings": Settings(byok="only"), "deliver": print, "refuse": refuse}
    try:
        with bind_caller(Caller(identifier="acme")):
            if kind == "sync":
                _ask(base_url, httpx_transport.client(**options))
            else:
                asyncio.run(_ask_async(base_url, httpx_transport.async_client(**options)))
    except Exception as error:  # noqa: BLE001 - whatever the app would see
        return {
            "type": type(error).__name__,
            "cause": type(error.__cause__).__name__,
            "message": str(error),
            "attempts": counts()["refused_missing_credential"] - before,
        }
    raise AssertionError("the call went out")


def _ask(base_url: str, http_client: Any) -> None:
    with openai.OpenAI(api_key="app", base_url=base_url, http_client=http_client) as client:
        client.chat.completions.create(model="m", messages=MESSAGES)


async def _ask_async(base_url: str, http_client: Any) -> None:
    async with openai.AsyncOpenAI(api_key="app", base_url=base_url, http_client=http_client) as client:
        await client.chat.completions.create(model="m", messages=MESSAGES)


main(sys.argv[1])

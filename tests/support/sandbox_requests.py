"""Requests to the sandbox as anyone could send them, with no SDK between."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx

from kwai_middleware.sandbox import Sandbox
from kwai_middleware.sandbox.json_types import object_or_empty

__all__ = [
    "APP_KEY",
    "GATEWAY_MESSAGES",
    "HELLO",
    "OPENROUTER_MESSAGES",
    "USER_KEY",
    "ask_gateway",
    "ask_messages",
    "encoded",
]

APP_KEY, USER_KEY = "app-key-0123", "sk-or-v1-acme"
GATEWAY_MESSAGES, OPENROUTER_MESSAGES = "/api/anthropic/v1/messages", "/api/v1/messages"
HELLO: list[Any] = [{"role": "user", "content": "Hello you there"}]


def encoded(value: object) -> str:
    """What a parameter header holds."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def ask_gateway(sandbox: Sandbox, body: object, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Post members beside a chat request's own, or bytes as they are, to the gateway with the app's key."""
    content = (
        body
        if isinstance(body, bytes)
        else json.dumps({"model": "openai/gpt", "messages": HELLO, **object_or_empty(body)}).encode()
    )
    return httpx.post(
        f"{sandbox.gateway_url}chat/completions",
        content=content,
        headers={"authorization": f"Bearer {APP_KEY}", **(headers or {})},
        trust_env=False,
    )


def ask_messages(
    sandbox: Sandbox, path: str, body: Mapping[str, object] | None = None, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """Post members beside those of a request in Anthropic's format, with the app's key unless `headers` are given."""
    asked = {"model": "any", "max_tokens": 64, "messages": HELLO, **(body or {})}
    sent = {"authorization": f"Bearer {APP_KEY}"} if headers is None else headers
    return httpx.post(sandbox.url + path, json=asked, headers=sent, trust_env=False)

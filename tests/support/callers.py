"""Callers and settings that many tests need."""

from __future__ import annotations

from typing import Any

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings

GATEWAY = "https://api.keywordsai.co/api/chat/completions"
OPENROUTER = "https://openrouter.ai/api/v1/chat/completions"


def key_of(customer: str) -> str:
    """The made-up OpenRouter key of a made-up customer."""
    return f"sk-or-v1-{customer}-" + "0" * 20


def caller(customer: str = "acme", **more: Any) -> Caller:
    """A caller with an identifier and one OpenRouter key."""
    options: dict[str, Any] = {"identifier": customer, "credentials": (Credential(api_key=Secret(key_of(customer))),)}
    return Caller(**(options | more))


def settings(**more: Any) -> Settings:
    """Settings that read nothing from the environment."""
    return Settings(**more)

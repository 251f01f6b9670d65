"""The vendors' SDKs, pointed at the sandbox."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import httpx
import httpx2
import openai
from openrouter import OpenRouter

from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_requests import APP_KEY, USER_KEY

__all__ = ["VENDORS", "base_url", "openai_sdk", "openrouter_sdk", "post"]

VENDORS = ["gateway", "openrouter"]


def base_url(sandbox: Sandbox, vendor: str) -> str:
    """Where a vendor's endpoints are, with a slash at the end."""
    return sandbox.gateway_url if vendor == "gateway" else f"{sandbox.openrouter_url}/"


def openai_sdk(sandbox: Sandbox, vendor: str, key: str | None = None) -> openai.OpenAI:
    """OpenAI's SDK that asks a vendor, with the app's key or the user's unless another is given."""
    own = APP_KEY if vendor == "gateway" else USER_KEY
    http_client = httpx2.Client(trust_env=False)
    return openai.OpenAI(base_url=base_url(sandbox, vendor), api_key=key or own, max_retries=0, http_client=http_client)


@contextlib.contextmanager
def openrouter_sdk(sandbox: Sandbox) -> Iterator[OpenRouter]:
    """OpenRouter's own SDK, with the user's key; it leaves an HTTP client that it was given open."""
    with (
        httpx.Client(trust_env=False) as http_client,
        OpenRouter(api_key=USER_KEY, server_url=sandbox.openrouter_url, client=http_client) as llm,
    ):
        yield llm


def post(
    sandbox: Sandbox, vendor: str, path: str, body: object, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """Post a JSON body to a vendor with its key, with no SDK between."""
    key = APP_KEY if vendor == "gateway" else USER_KEY
    sent = {"authorization": f"Bearer {key}", **(headers or {})}
    return httpx.post(base_url(sandbox, vendor) + path, json=body, headers=sent, trust_env=False)

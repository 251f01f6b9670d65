"""The worker: a task runs for the customer it was started for, and that customer's key pays."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery  # type: ignore[import-untyped]  # Celery comes without types
from openai import OpenAI

import kwai_middleware as kwai
from kwai_middleware import httpx2_transport

redis_url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
queue = Celery(broker=redis_url, backend=redis_url)

# 1. A client, one for the whole process. Only `http_client` differs from what you would write anyway.
settings = kwai.Settings.from_env()
direct = OpenAI(
    base_url=settings.openrouter_base_url,
    api_key=os.environ["OPENROUTER_API_KEY"],  # pays for customers who have no key
    http_client=httpx2_transport.client(settings=settings),
)


# 2. Where customers' keys are kept. In your app that is a vault or a database; here it is a file.
def keys_of(caller: kwai.Caller) -> list[kwai.Credential]:
    """Look up a customer's keys."""
    vault = Path(os.environ.get("CUSTOMER_KEYS", Path(__file__).with_name("customer_keys.json")))
    keys = json.loads(vault.read_text()).get(caller.identifier, [])
    return [kwai.Credential(provider="openrouter", api_key=kwai.Secret(key)) for key in keys]


customer_keys = kwai.KeyResolver(keys_of, ttl=300.0)


# 3. The task. In the block everything is the customer's, as it is in a request; a forged or an old reference raises.
@queue.task(name="tasks.summarise")  # type: ignore[untyped-decorator]  # Celery comes without types
def summarise(reference: str, text: str) -> dict[str, Any]:
    """Have a text summarised by a model."""
    with kwai.bind_reference(reference, credentials=customer_keys):
        caller = kwai.current_caller()
        completion = direct.chat.completions.create(
            model="openai/gpt-4o-mini",
            messages=[{"role": "user", "content": f"Summarise in one sentence: {text}"}],
        )
    return {"customer": caller and caller.identifier, "summary": completion.choices[0].message.content}

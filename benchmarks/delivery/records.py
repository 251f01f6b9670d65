"""What the cases deliver, and to where."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from kwai_middleware import Caller, CompletedCall, Delivery, Secret, Settings

__all__ = ["KEY", "call", "on_disk", "settings", "wait_until"]

KEY: Final = Secret("benchmark-key")
_AWAY: Final = "http://127.0.0.1:9/api"
_WORDS: Final = "The quick brown fox jumps over the lazy dog. "


def call(size: int = 10_000) -> CompletedCall:
    """Return a finished call with `size` bytes of prompt and answer."""
    words = _WORDS * (size // 90 + 1)
    return CompletedCall(
        route="direct", host="openrouter.ai", endpoint="/api/v1/chat/completions", format="chat", model="m",
        outcome="complete", status_code=200, started_at=time.time(), duration=0.5, caller=Caller(identifier="acme"),
        messages=json.dumps([{"role": "user", "content": words[: size // 2]}]).encode(),
        completions=({"role": "assistant", "content": words[: size // 2]},), prompt_tokens=10, completion_tokens=20,
    )  # fmt: skip


@contextmanager
def settings(**more: Any) -> Iterator[Settings]:
    """Settings with a spool of their own on the disk; the vendor is away unless they name one."""
    # That the vendor is away, and the folder gone at the end, is no news here.
    logging.getLogger("kwai_middleware").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        ours = {"api_key": KEY, "base_url": _AWAY, "spool": f"sqlite://{folder}/spool/", "max_spool_bytes": 4 << 30}
        yield Settings(**{**ours, **more})


def on_disk(delivery: Delivery) -> int:
    """Return how many calls are on the disk by now."""
    # `stats` looks into the file as well, and what is measured would wait for that.
    return delivery._engine._calls.account().spooled


def wait_until(condition: Callable[[], bool], glance: float = 0.002, seconds: float = 300) -> None:
    """Look again and again.

    Raises:
        TimeoutError: It did not come true.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(glance)

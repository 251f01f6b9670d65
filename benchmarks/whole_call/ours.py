"""The SDK alone, and with this library: at the model's own API with delivery, and through the gateway."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.whole_call.calls import Kind, Way
from benchmarks.whole_call.other_side import CALLERS_KEY, OtherSide, Seen

__all__ = ["direct", "direct_in_memory", "direct_with_lines", "gateway", "plain"]

_APPS_KEY = "sk-or-v1-of-the-app"


def _paid_by_app(seen: Seen) -> bool:
    return not (seen.paid_by_caller or seen.injected or seen.requests)


def _all_recorded(seen: Seen) -> bool:
    return seen.calls == seen.paid_by_caller == seen.prompts == seen.answers


@contextmanager
def plain(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """The SDK as it comes."""
    import openai

    client = openai.AsyncOpenAI if kind.is_async else openai.OpenAI
    yield Way(client(api_key=_APPS_KEY, base_url=other.api), is_done=_paid_by_app)


@contextmanager
def direct(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """The customer's key takes the place of the app's, and each call is recorded, spooled on disk and shipped."""
    with _way(other, kind, other.api, _all_recorded) as way:
        yield way


@contextmanager
def direct_in_memory(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """The same with the records that wait in memory, where those of the peers wait: a process that dies loses them."""
    with _way(other, kind, other.api, _all_recorded, spool="memory:") as way:
        yield way


@contextmanager
def direct_with_lines(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """The same in an app that has structlog write JSON to a file, one line for each call among it."""
    import structlog

    with tempfile.TemporaryDirectory() as folder, Path(folder, "app.log").open("w") as log:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.WriteLoggerFactory(log),
            cache_logger_on_first_use=True,
        )
        with direct(other, kind) as way:
            yield way


@contextmanager
def gateway(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """The customer's key and identity travel in the body, and the gateway logs the call."""

    def is_done(seen: Seen) -> bool:
        return seen.calls == seen.injected and seen.requests == 0

    with _way(other, kind, other.gateway, is_done) as way:
        yield way


@contextmanager
def _way(
    other: OtherSide, kind: Kind, base_url: str, is_done: Callable[[Seen], bool], spool: str | None = None
) -> Iterator[Way]:
    import openai

    from kwai_middleware import Caller, Credential, Secret, Settings, bind_caller, default_delivery, httpx2_transport

    caller = Caller(identifier="acme-4711", credentials=(Credential(api_key=Secret(CALLERS_KEY)),))

    def in_request(ask: Any) -> Any:
        def asked() -> str:
            with bind_caller(caller):
                answer: str = ask()
                return answer

        async def asked_async() -> str:
            with bind_caller(caller):
                answer: str = await ask()
                return answer

        return asked_async if kind.is_async else asked

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            api_key=Secret("key-of-the-app"),
            base_url=other.gateway,
            openrouter_base_url=other.api,
            spool=spool or f"sqlite://{folder}/spool/",
            # What the vendor allows in a minute says nothing about a round, which is over after a second.
            bulk_per_minute=60_000,
        )

        def flush() -> None:
            if not default_delivery(settings).flush(30):
                raise RuntimeError(default_delivery(settings).stats())

        transport: Any = httpx2_transport.async_client if kind.is_async else httpx2_transport.client
        client: Any = openai.AsyncOpenAI if kind.is_async else openai.OpenAI
        yield Way(
            client(api_key=_APPS_KEY, base_url=base_url, http_client=transport(settings=settings)),
            around=in_request,
            flush=flush,
            is_done=is_done,
        )
        default_delivery(settings).close()

"""Rounds of load on a server, each of them looked into afterwards."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any, Final

from benchmarks.loopback.running import Loopback, loopback
from benchmarks.loopback.sink import accepted
from benchmarks.plan import Prepare, Round, Scale
from benchmarks.timing import percentiles
from benchmarks.whole_app import conversation
from benchmarks.whole_app.arrived import ARRIVED
from benchmarks.whole_app.load import load
from benchmarks.whole_app.servers import Command, serving

__all__ = ["CONNECTIONS", "prepare"]

CONNECTIONS: Final = 32

_KEPT: Final = 1 << 30
_ASKED_BY: Final = re.compile(r"I am (customer-\d+)\. ")


def prepare(command: Command, variant: str) -> Prepare:
    """Return what sets up a model, a sink and a server, and puts load on it.

    Args:
        command: Runs the server.
        variant: Its app.
    """

    @contextmanager
    def prepared(scale: Scale) -> Iterator[Round]:
        new_loop: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
        with (
            loopback(conversation.answered, keep=_KEPT) as model,
            loopback(accepted, keep=_KEPT) as sink,
            tempfile.TemporaryDirectory() as folder,
            serving(command, variant, _environment(model, sink, folder)) as port,
            asyncio.Runner(loop_factory=new_loop) as runner,
        ):
            requests = conversation.requests()

            def one_round() -> dict[str, float]:
                begun = _told(port, "/begin")
                took, seconds = runner.run(
                    load(
                        port,
                        requests,
                        connections=CONNECTIONS,
                        seconds=scale.seconds,
                        expected=conversation.ANSWERED,
                    )
                )
                ended = _told(port, "/end")
                _check_keys(model, len(took))
                return {
                    "CPU": (ended["cpu"] - begun["cpu"]) / len(took) * 1e6,
                    "requests": len(took) / seconds,
                    **percentiles(took, 50, 99, 99.9),
                    "loop lag": ended.get("lag", 0.0) * 1e3,
                    "RSS": ended["rss"] / 1e6,
                    "recorded": _recorded(variant, sink) / len(took) * 100,
                }

            yield one_round

    return prepared


def _environment(model: Loopback, sink: Loopback, folder: str) -> dict[str, str]:
    """Where each variant finds the model and the sink, by its own names."""
    return {
        "MODEL_URL": f"{model.url}/api/v1",
        "KEYWORDSAI_API_KEY": "app-key",
        "KEYWORDSAI_BASE_URL": f"{sink.url}/api",
        "OPENROUTER_BASE_URL": f"{model.url}/api/v1",
        "KWAI_SPOOL": f"sqlite://{folder}/spool/",
        # The vendor's pace is 30 requests a minute. Peers ship at once, so for these numbers this library does as well.
        "KWAI_BULK_PER_MINUTE": "60000",
        "LANGFUSE_PUBLIC_KEY": "pk-lf-benchmark",
        "LANGFUSE_SECRET_KEY": "sk-lf-benchmark",
        "LANGFUSE_BASE_URL": sink.url,
        "SENTRY_DSN": f"http://benchmark@127.0.0.1:{sink.port}/1",
    }


def _told(port: int, path: str) -> dict[str, Any]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        told: dict[str, Any] = json.loads(connection.getresponse().read())
        return told


def _check_keys(model: Loopback, count: int) -> None:
    """See that each call was paid by the key of the customer that asked."""
    calls = model.kept()
    if len(calls) != count:
        raise RuntimeError(f"{count} requests made {len(calls)} calls")
    for call in calls:
        name = _asked_by(call.body.decode())
        if call.headers.get("authorization") != f"Bearer {conversation.key_of(name)}":
            raise RuntimeError(f"a call of {name} was paid by another key")


def _recorded(variant: str, sink: Loopback) -> int:
    """Return how many calls arrived at the sink, each of which is the right customer's and whole."""
    count = 0
    for count, (name, text) in enumerate(ARRIVED[variant](sink.kept()), 1):  # noqa: B007 - the last one is the count
        if _asked_by(text) != name:
            raise RuntimeError(f"a call of {_asked_by(text)} was recorded as that of {name!r}")
        if conversation.TEXT.strip() not in text:
            raise RuntimeError(f"an answer was not recorded: {text[:2000]}")
    if not count and variant != "plain":
        raise RuntimeError("nothing arrived at the sink")
    return count


def _asked_by(text: str) -> str:
    found = _ASKED_BY.search(text)
    return "" if found is None else found[1]

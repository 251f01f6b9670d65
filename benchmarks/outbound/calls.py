"""What a call costs the thread that makes it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import httpx2

from benchmarks.outbound import ways
from benchmarks.outbound.model import HEADERS, Model, conversation, transport_over
from benchmarks.plan import Bar, Case, Metric, Prepare, Role, Round, Scale, Variant
from benchmarks.timing import sync_loop

__all__ = ["BY_LIBRARY", "BY_SIZE", "QUICK", "SAME_WORK", "checked"]

QUICK: Final = Scale(is_quick=True, rounds=3, seconds=0.015)

_BODY: Final = 10_000
_SIZES: Final = {"1 KB": 1_000, "100 KB": 100_000, "1 MB": 1_000_000, "10 MB": 10_000_000}


def checked(way: ways.Way, model: Model, body: bytes) -> Callable[[int], None]:
    """Send one call, look at what has arrived, and return what sends more of them. The way has been entered."""
    post, url = way.client.post, way.url
    model.keeps = True
    answer = post(url, content=body, headers=HEADERS)
    model.keeps = False
    ways.must("the answer", "stop", answer.json()["choices"][0]["finish_reason"])
    way.check(body, model)
    model.body = b""

    def calls(times: int) -> None:
        for _ in range(times):
            post(url, content=body, headers=HEADERS)

    return calls


def _calls(library_name: str, make: ways.MakeWay) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        library = importlib.import_module(library_name)
        model = Model(library)
        way = make(library, model)
        with way.around, sync_loop(checked(way, model, conversation(_BODY)), scale) as one_round:
            yield one_round

    return prepare


_WAYS: Final[tuple[tuple[str, Role, ways.MakeWay, str | None], ...]] = (
    ("plain", "plain", ways.plain, None),
    ("a transport that only forwards", "floor", ways.floor, None),
    ("through the gateway", "ours", ways.gateway, None),
    ("to OpenRouter", "ours", ways.direct, None),
    ("parse and dump with json", "peer", ways.json_dump, None),
    ("parse and dump with orjson", "peer", ways.orjson_dump, "orjson"),
    ("abto's hook", "peer", ways.abto, "abto"),
    ("OpenTelemetry's instrumentation", "peer", ways.opentelemetry, "opentelemetry-instrumentation-httpx"),
)
SAME_WORK: Final = tuple(way for way in _WAYS if way[0] in ("plain", "through the gateway") or "dump" in way[0])


def _by_library(library: str) -> Case:
    return Case(
        name=library,
        title=f"A call with {library}",
        what=f"CPU of the calling thread for one POST of 10 KB with {library} and its answer of 2 KB, on a "
        "transport that answers at once. Ours brings the customer and the customer's key into the request, watches "
        "the answer, and hands the finished call over to a function that does nothing: what recording costs besides "
        "stands with the whole call. Parse-and-dump does the first of these; abto's hook writes five headers for its "
        "own gateway, and records nothing; OpenTelemetry injects no customer and makes a span, which an exporter "
        "behind its batch processor counts and lets go.",
        metrics=(Metric("CPU", "µs"),),
        variants=tuple(Variant(name, role, _calls(library, make), peer) for name, role, make, peer in _WAYS),
        base="plain",
        bars=tuple(
            Bar(f"A call of 10 KB {way} over plain {library}", way, "CPU", 20, of="added")
            for way in ("through the gateway", "to OpenRouter")
        ),
        quick=QUICK,
        is_in_quick_run=library == "httpx2",
    )


BY_LIBRARY: Final = (_by_library("httpx2"), _by_library("httpx"))


def _all_sizes(make: ways.MakeWay) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        model = Model(httpx2)
        way = make(httpx2, transport_over(model, httpx2))
        with way.around, ExitStack() as stack:
            by_size = {said: checked(way, model, conversation(size)) for said, size in _SIZES.items()}
            rounds = [stack.enter_context(sync_loop(calls, scale, said)) for said, calls in by_size.items()]

            def one_round() -> dict[str, float]:
                return {said: took for each in rounds for said, took in each().items()}

            yield one_round

    return prepare


BY_SIZE: Final = Case(
    name="sizes",
    title="A call by the size of its body",
    what="CPU of the calling thread for one POST with httpx2, on its own transport, whose connection pool answers at "
    "once: with that one inside, a large body goes out in parts, as it does in an app.",
    metrics=tuple(Metric(said, "µs") for said in _SIZES),
    variants=tuple(Variant(name, role, _all_sizes(make), peer) for name, role, make, peer in SAME_WORK),
    base="plain",
    bars=(Bar("A call of 1 MB through the gateway over plain httpx2", "through the gateway", "1 MB", 400, of="added"),),
    quick=QUICK,
    full=Scale(is_quick=False, rounds=11, seconds=0.15),
)

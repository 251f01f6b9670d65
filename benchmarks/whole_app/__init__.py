"""A whole app: FastAPI under uvicorn, Flask under gunicorn, under load from another process."""

from __future__ import annotations

from typing import Final

from benchmarks.plan import Bar, Case, Metric, Scale, Suite, Variant
from benchmarks.whole_app import servers
from benchmarks.whole_app.rounds import CONNECTIONS, prepare

__all__ = ["SUITE"]

_WITHOUT: Final = "without"
_OURS: Final = "kwai_middleware"


def _case(name: str, title: str, command: servers.Command, what: str, *more: Metric) -> Case:
    return Case(
        name=name,
        title=title,
        what=f"{what} Each request makes one call with the OpenAI SDK to a model on loopback that answers at once with "
        f"2 KB; {CONNECTIONS} connections, each sends its next request when the last is answered, for one of 100 "
        "customers, whose own key pays: without this library the endpoint hands it to the SDK as a header. Customer, "
        "prompt and answer of each call go to a sink on loopback that takes everything, and are looked at there. CPU: "
        "of the server's process, for each request, until all that it recorded is exported; `recorded`: calls that "
        "arrived at the sink. The vendor's pace of 30 bulk requests a minute, which this library keeps, is switched "
        "off, since the peers have none; Sentry traces every request.",
        metrics=(
            Metric("CPU", "µs"),
            Metric("requests", "1/s", more_is_better=True),
            Metric("p50", "ms", is_compared=False, decides=False),
            Metric("p99", "ms", is_compared=False, decides=False),
            Metric("p99.9", "ms", is_compared=False, decides=False),
            *more,
            Metric("RSS", "MB", is_compared=False, decides=False),
            Metric("recorded", "%", is_compared=False, decides=False),
        ),
        variants=(
            Variant(_WITHOUT, "plain", prepare(command, "plain")),
            Variant(_OURS, "ours", prepare(command, "ours")),
            Variant("Langfuse", "peer", prepare(command, "langfuse"), "langfuse"),
            Variant("Sentry", "peer", prepare(command, "sentry"), "sentry-sdk"),
        ),
        base=_WITHOUT,
        bars=tuple(
            Bar(f"{title}: CPU of a request over the same app with {peer}", _OURS, "CPU", 0, of="added", over=peer)
            for peer in ("Langfuse", "Sentry")
        ),
        quick=Scale(is_quick=True, rounds=1, seconds=0.6),
        full=Scale(is_quick=False, rounds=5, seconds=3),
    )


SUITE: Final = Suite(
    "whole_app",
    "A whole app",
    (
        _case(
            "fastapi",
            "FastAPI under uvicorn",
            servers.uvicorn,
            "FastAPI under uvicorn: one worker, uvloop and httptools, no access log. `loop lag`: how much longer than "
            "5 ms a sleep of 5 ms takes on the server's loop, p99.",
            Metric("loop lag", "ms", is_compared=False, decides=False),
        ),
        _case("flask", "Flask under gunicorn", servers.gunicorn, "Flask under gunicorn: one worker with 8 threads."),
    ),
)

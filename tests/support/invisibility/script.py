"""The whole script, over HTTP/1.1 and over HTTP/2."""

from __future__ import annotations

from typing import Final

from tests.support.invisibility import (
    steps_answers,
    steps_cancelling,
    steps_clients,
    steps_failures,
    steps_http2,
    steps_keeping,
    steps_redirects,
    steps_requests,
    steps_sessions,
    steps_transports,
    steps_uploads,
)
from tests.support.invisibility.cells import Cell
from tests.support.invisibility.steps import Step

__all__ = ["HTTP2_SCRIPT", "SCRIPT", "for_cell"]

SCRIPT: Final[tuple[Step, ...]] = tuple(
    step
    for part in (
        steps_answers, steps_keeping, steps_requests, steps_uploads, steps_redirects, steps_sessions, steps_failures,
        steps_transports, steps_clients, steps_cancelling,
    )
    for step in part.STEPS
)  # fmt: skip


_ONLY_HTTP1: Final = (
    "a broken answer", "an upgraded", "reading an upgraded", "a streamed upload of", "an answer closed under",
    "a connection that the server closed", "an upload of no bytes", "an upload that fails",
    "calls at the same time",
)  # fmt: skip
_FRAMED: Final = [
    step
    for part in (
        steps_answers,
        steps_keeping,
        steps_requests,
        steps_uploads,
        steps_redirects,
        steps_sessions,
        steps_cancelling,
    )
    for step in part.STEPS
    if not step.name.startswith(_ONLY_HTTP1)
]  # fmt: skip
HTTP2_SCRIPT: Final[tuple[Step, ...]] = (*steps_http2.STEPS, *_FRAMED[::2])
"""What only HTTP/2 has, and every second of the steps that make sense there too: each has a connection to encrypt."""


def for_cell(steps: tuple[Step, ...], cell: Cell, *, asynchronous: bool) -> list[Step]:
    """Return the steps that a cell can do; every second one where nobody is bound, so that nothing is changed."""
    return [
        step
        for step in (steps if cell.keyed else steps[::2])
        if (asynchronous or not step.asynchronous) and (step.gateway or cell.kind != "gateway")
    ]

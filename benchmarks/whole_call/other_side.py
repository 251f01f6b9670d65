"""The process of the other side, as a variant sees it."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from benchmarks.whole_call.server import SEEN

__all__ = ["OtherSide", "Seen", "other_side"]


class Seen(msgspec.Struct, frozen=True):
    """What the other side got since it was asked last.

    Attributes:
        calls: Of the model.
        paid_by_caller: Those of them with the customer's own key in their header.
        injected: Those of them with the customer's key and identifier in their body.
        requests: That brought something to the sink.
        bytes: That they had, as they came over the wire.
        prompts: In all that the sink got.
        answers: In all that the sink got.
    """

    calls: int
    paid_by_caller: int
    injected: int
    requests: int
    bytes: int
    prompts: int
    answers: int


class OtherSide:
    """The model and the sink; one server for both.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        self.url: Final = url
        # By none of the clients that a peer may have instrumented.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def api(self) -> str:
        """The base URL of a model's own API."""
        return f"{self.url}/api/v1"

    @property
    def gateway(self) -> str:
        """The base URL of a gateway, and of its logs API."""
        return f"{self.url}/gateway/api"

    def seen(self) -> Seen:
        """Return what it got, and let it begin anew."""
        with self._opener.open(self.url + SEEN) as answer:
            return msgspec.json.decode(answer.read(), type=Seen)


@contextmanager
def other_side() -> Iterator[OtherSide]:
    """Start it, and end it again."""
    program = "from benchmarks.whole_call.server import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield OtherSide(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()

"""What the OpenAI and the Anthropic SDK have in common beyond answers: raw responses, stream helpers, limits."""

from __future__ import annotations

from typing import Any, ClassVar

from kwai_middleware import bind_caller
from tests.support.callers import caller
from tests.support.clients.checks import ClientChecks, Make
from tests.support.clients.client import MODEL, WORDS
from tests.support.clients.openai_client import messages
from tests.support.clients.seen import shown
from tests.support.flavours import Flavour

__all__ = ["StainlessChecks"]

REQUEST: dict[str, Any] = {"model": MODEL, "messages": messages(WORDS), "max_tokens": 99}


class StainlessChecks(ClientChecks):
    """Inherited by the tests of an SDK that Stainless makes.

    Attributes:
        limits: On connections, in the SDK's own client.
    """

    limits: ClassVar[Any]

    def resource(self, client: Any) -> Any:
        """What one asks."""
        return client.client.chat.completions

    def test_time_outs_retries_and_limits_are_its_own(self, make: Make, flavour: Flavour) -> None:
        """Nobody sets them anew because of our client."""
        ours, own = make("openrouter").client, make("openrouter", ours=False).client
        assert (own.timeout, own.max_retries) == (ours.timeout, ours.max_retries)
        assert self.limits.max_connections == flavour.door._clients.limits.max_connections
        assert self.limits.max_keepalive_connections == flavour.door._clients.limits.max_keepalive_connections

    def test_raw_responses_are_its_own(self, make: Make, flavour: Flavour) -> None:
        """with_raw_response and with_streaming_response give what they give over its own HTTP client."""
        seen = []
        for ours in (False, True):
            asked = self.resource(make("openrouter", ours=ours))
            with bind_caller(caller()):
                raw = flavour.run(asked.with_raw_response.create(**REQUEST))
                streaming = asked.with_streaming_response.create(**REQUEST, stream=True)
                lines = flavour.run(_lines_async(streaming)) if flavour.asynchronous else _lines(streaming)
            names = sorted(name.lower() for name in raw.headers)
            seen.append([type(raw), raw.status_code, names, type(flavour.run(raw.parse())), raw.retries_taken, *lines])
        assert seen[0] == seen[1]
        assert len(seen[1]) > 8

    def test_the_stream_helper_is_its_own(self, make: Make, flavour: Flavour) -> None:
        """Its events, their order, and what it puts together from them."""
        seen = []
        for ours in (False, True):
            helper = self.resource(make("openrouter", ours=ours)).stream(**REQUEST)
            with bind_caller(caller()):
                seen.append(flavour.run(_events_async(helper)) if flavour.asynchronous else _events(helper))
        assert seen[0] == seen[1]
        assert WORDS in str(seen[1][-1])


def _lines(streaming: Any) -> list[Any]:
    with streaming as response:
        return [type(response), *(line[:6] for line in response.iter_lines())]


async def _lines_async(streaming: Any) -> list[Any]:
    async with streaming as response:
        return [type(response), *[line[:6] async for line in response.iter_lines()]]


def _final(stream: Any) -> Any:
    return getattr(stream, "get_final_completion", None) or stream.get_final_message


def _events(helper: Any) -> list[Any]:
    with helper as stream:
        return [type(stream), *(type(event) for event in stream), shown(_final(stream)())]


async def _events_async(helper: Any) -> list[Any]:
    async with helper as stream:
        return [type(stream), *[type(event) async for event in stream], shown(await _final(stream)())]

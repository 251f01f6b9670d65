"""The SDKs that stand on our clients: their answers, streams and errors are their own, and each call is seen whole."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import openai
import openrouter.errors
import pytest

from kwai_middleware import Credential, Secret, bind_caller, carry_caller
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller, key_of
from tests.support.clients.client import HOUSE_KEY, WORDS, Calls
from tests.support.clients.openai_client import OpenAI, messages
from tests.support.clients.openrouter_client import OpenRouter
from tests.support.clients.raw_client import Raw
from tests.support.examples import sandbox_process
from tests.support.flavours import FLAVOURS, SYNC_FLAVOURS, Flavour
from tests.support.proxy import forward_proxy

MESSAGES = messages(WORDS)


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


@pytest.fixture
def calls() -> Calls:
    return Calls()


# OpenRouter's SDK takes a client of httpx2, but sends it a time-out object of httpx, which a real connection refuses.
COMBINATIONS = [
    pytest.param(sdk, flavour.values[0], id=f"{sdk.name}-{flavour.id}")
    for sdk in (OpenAI, OpenRouter, Raw)
    for flavour in FLAVOURS
    if sdk is not OpenRouter or "httpx2" not in str(flavour.id)
]
every_sdk = pytest.mark.parametrize(("sdk", "flavour"), COMBINATIONS, indirect=True)


@pytest.fixture
def sdk(request: pytest.FixtureRequest, flavour: Flavour, calls: Calls, vendors: Sandbox) -> Iterator[Any]:
    """Makes an SDK for a base URL, with a ready client of ours."""
    yield from _maker(request.param, flavour, calls, vendors)


@pytest.fixture
def openai_sdk(flavour: Flavour, calls: Calls, vendors: Sandbox) -> Iterator[Any]:
    yield from _maker(OpenAI, flavour, calls, vendors)


def _maker(kind: Any, flavour: Flavour, calls: Calls, vendors: Sandbox) -> Iterator[Callable[..., Any]]:
    vendors.reset()
    clients = []

    def make(base_url: str, **options: Any) -> Any:
        settings = vendors.settings(**options.pop("settings", {}))
        clients.append(flavour.client(settings=settings, deliver=calls.deliver, **options))
        return kind(flavour, clients[-1], base_url, retries=2 if kind is OpenAI else 0)

    yield make
    for client in clients:
        flavour.close(client)


def _base(vendors: Sandbox, route: str) -> str:
    return {"gateway": vendors.gateway_url, "relay": vendors.relay_url, "openrouter": vendors.openrouter_url}[route]


@every_sdk
@pytest.mark.parametrize("route", ["gateway", "relay", "openrouter"])
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
def test_a_call_of_every_sdk(
    sdk: Any, flavour: Flavour, calls: Calls, vendors: Sandbox, route: str, streamed: bool
) -> None:
    """The caller pays and is named, the SDK gets its answer, and the record has all of it, complete."""
    client = sdk(_base(vendors, route))
    with bind_caller(caller("acme")):
        answer = flavour.run(client.stream() if streamed else client.ask())
    assert "one two three" == answer
    [call] = vendors.calls(wait=1)
    assert Secret(key_of("acme")).fingerprint == call["paid_by"]["fingerprint"]
    assert route == call["route"]
    assert ("acme" if route != "openrouter" else None) == call["customer"]
    assert ([], []) == (call["doors_disagree"], call["forwarded"])
    record = calls.next()
    assert ("complete", 200, streamed) == (record.outcome, record.status_code, record.stream)
    assert "openai/gpt-4o" == record.model
    assert record.caller is not None
    assert ("acme", ()) == (record.caller.identifier, record.caller.credentials)
    assert "one two three" == record.completions[0]["content"]
    assert "stop" == record.finish_reason
    if route != "gateway" or not streamed:  # OpenAI's shape streams no usage unless asked
        assert record.prompt_tokens
        assert record.completion_tokens
    assert (record.time_to_first_token is not None) == streamed
    billed_to = "unknown" if route == "gateway" else "caller"
    assert (route, billed_to) == (record.route.replace("direct", "openrouter"), record.billed_to)
    assert Secret(key_of("acme")).fingerprint == record.key_fingerprint
    if route != "gateway":
        assert record.cost
        assert record.generation_id
    assert (route != "openrouter") == bool(record.gateway_log_id)
    assert calls.none_left()


@pytest.mark.parametrize("model", ["sandbox/late-end", "sandbox/long-200", "sandbox/gzip", "sandbox/zstd"])
def test_a_stream_that_the_sdk_reads_to_its_end(
    openai_sdk: Any, flavour: Flavour, calls: Calls, vendors: Sandbox, model: str
) -> None:
    """The SDK leaves after the last event, by closing; that is complete, and the time ends at the event."""
    with bind_caller(caller()):
        answer = flavour.run(openai_sdk(vendors.openrouter_url).stream(model))
    record = calls.next()
    assert "complete" == record.outcome
    assert answer == record.completions[0]["content"]
    assert record.usage is not None
    assert record.duration is not None
    if model == "sandbox/late-end":
        assert record.duration < 1.0  # the body ends a second after the last event
    assert calls.none_left()


def test_a_stream_that_the_app_leaves(openai_sdk: Any, flavour: Flavour, calls: Calls, vendors: Sandbox) -> None:
    """What had come until then is recorded as cancelled."""
    client = openai_sdk(vendors.openrouter_url).client

    async def leave() -> None:
        stream = await client.chat.completions.create(model="sandbox/stall", messages=MESSAGES, stream=True)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        await stream.close()

    with bind_caller(caller()):
        if flavour.asynchronous:
            flavour.run(leave())
        else:
            with client.chat.completions.create(model="sandbox/stall", messages=MESSAGES, stream=True) as stream:
                next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
    record = calls.next()
    assert "cancelled" == record.outcome
    assert record.completions[0]["content"]
    assert calls.none_left()


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [("time-out", "timeout"), ("reset", "error"), ("never closed", "abandoned"), ("no end", "incomplete")],
)
def test_a_stream_that_ends_badly(
    openai_sdk: Any, flavour: Flavour, calls: Calls, vendors: Sandbox, ending: str, outcome: str
) -> None:
    """Each way is one record with the partial text, whatever the SDK makes of it."""
    model = {"time-out": "sandbox/stall", "reset": "sandbox/cut", "never closed": "sandbox/stall"}.get(ending)
    client = openai_sdk(vendors.openrouter_url).client.with_options(timeout=0.3 if ending == "time-out" else 30)

    def start(stream: Any) -> Any:
        return next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)

    async def start_async(stream: Any) -> Any:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                return chunk
        raise AssertionError("no content came")

    def collected() -> None:
        for _ in range(100):
            gc.collect()
            if not calls.none_left():
                return

    async def collected_async() -> None:
        while calls.none_left():
            gc.collect()
            await asyncio.sleep(0)

    async def rest_async(stream: Any) -> None:
        async for _ in stream:
            pass

    request: Any = {"model": model or "sandbox/no-done", "messages": MESSAGES, "stream": True}
    with bind_caller(caller()):
        stream = flavour.run(client.chat.completions.create(**request))
    assert flavour.run(start_async(stream)) if flavour.asynchronous else start(stream)
    if ending == "never closed":
        stream = None
        # The SDK's generators hang together in cycles, and those of an event loop are the loop's to finish.
        flavour.run(asyncio.wait_for(collected_async(), 30)) if flavour.asynchronous else collected()
    else:
        with contextlib.suppress(openai.APIError, flavour.library.TransportError):
            flavour.run(rest_async(stream)) if flavour.asynchronous else list(stream)
    record = calls.next()
    # Whether the collector finds our stream or the SDK's generator first, which then closes it, is up to it.
    assert outcome == record.outcome or (outcome, record.outcome) == ("abandoned", "cancelled")
    assert record.completions[0]["content"]
    assert calls.none_left()


@pytest.mark.parametrize("flavour", SYNC_FLAVOURS, indirect=True)
def test_a_long_answer_is_kept_at_both_ends(openai_sdk: Any, calls: Calls, vendors: Sandbox) -> None:
    """The app gets all of it; of the record's answer the middle is missing, and usage and cost are there."""
    client = openai_sdk(vendors.openrouter_url, settings={"max_call_bytes": 256 * 1024})
    with bind_caller(caller()):
        answer = client.stream("sandbox/long-5000")
    assert answer.endswith("word4999 ")
    record = calls.next()
    assert ("complete", True) == (record.outcome, record.truncated)
    assert record.cost
    assert record.usage is not None
    kept = record.completions[0]["content"]
    assert kept.startswith("word0 ")
    assert kept.endswith("word4999 ")
    assert len(kept) < len(answer) / 2


@pytest.mark.parametrize("flavour", SYNC_FLAVOURS, indirect=True)
@pytest.mark.parametrize("byok", ["prefer", "only"])
def test_a_bare_thread_starts_as_nobody(
    openai_sdk: Any, flavour: Flavour, calls: Calls, vendors: Sandbox, byok: str
) -> None:
    """An executor does not inherit the caller: on the app's bill, or refused where only callers may pay."""
    client = openai_sdk(vendors.openrouter_url, settings={"byok": byok})
    with bind_caller(caller()), ThreadPoolExecutor(1) as executor:
        bare = executor.submit(client.ask, "sandbox/echo")
        carried = executor.submit(carry_caller(client.ask), "sandbox/echo")
        assert "one two three" == carried.result(30)
        if byok == "only":
            with pytest.raises(openai.AuthenticationError):
                bare.result(30)
        else:
            assert "one two three" == bare.result(30)
    payers = [Secret(key).fingerprint for key in ([HOUSE_KEY] if byok == "prefer" else []) + [key_of("acme")]]
    assert sorted(payers) == sorted(call["paid_by"]["fingerprint"] for call in vendors.calls(wait=len(payers)))


@every_sdk
@pytest.mark.parametrize("way", ["proxy", "mounts", "environment"])
def test_an_sdk_behind_a_proxy(
    sdk: Any, flavour: Flavour, calls: Calls, vendors: Sandbox, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is attributed whichever of the client's transports it takes."""
    seen: list[str] = []
    with forward_proxy(seen) as proxy:
        if way == "environment":
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            client = sdk(vendors.gateway_url)
        elif way == "proxy":
            client = sdk(vendors.gateway_url, proxy=proxy.url)
        else:
            client = sdk(vendors.gateway_url, mounts={"all://": flavour.real_transport_class(proxy=proxy.url)})
        with bind_caller(caller()):
            assert "one two three" == flavour.run(client.ask("sandbox/echo"))
    assert 1 == len(seen)
    [call] = vendors.calls(wait=1)
    assert ("acme", Secret(key_of("acme")).fingerprint) == (call["customer"], call["paid_by"]["fingerprint"])
    assert "complete" == calls.next().outcome


def test_an_error_in_the_middle_of_a_stream(openai_sdk: Any, flavour: Flavour, calls: Calls, vendors: Sandbox) -> None:
    """The SDK raises its own error, and the record keeps the error and the partial text."""
    with bind_caller(caller()), pytest.raises(openai.APIError):
        flavour.run(openai_sdk(vendors.openrouter_url).stream("sandbox/stream-error"))
    record = calls.next()
    assert ("error", 200) == (record.outcome, record.status_code)
    assert record.error_message
    assert record.completions[0]["content"]


def test_each_retry_of_an_sdk_is_one_record(openai_sdk: Any, flavour: Flavour, calls: Calls, vendors: Sandbox) -> None:
    """The SDK tries three times, each attempt is attributed and recorded."""
    with bind_caller(caller()), pytest.raises(openai.InternalServerError):
        flavour.run(openai_sdk(vendors.openrouter_url).ask("sandbox/error-503"))
    assert [503, 503, 503] == [calls.next().status_code for _ in range(3)]
    assert calls.none_left()
    assert {Secret(key_of("acme")).fingerprint} == {call["paid_by"]["fingerprint"] for call in vendors.calls(wait=3)}


@pytest.mark.parametrize(
    ("ending", "error"),
    [("dead", openai.AuthenticationError), ("broke", openai.APIStatusError), ("slow", openai.RateLimitError)],
)
@pytest.mark.parametrize("route", ["gateway", "relay", "openrouter"])
def test_a_callers_key_that_fails_is_not_replaced(
    openai_sdk: Any, flavour: Flavour, vendors: Sandbox, calls: Calls, ending: str, error: type[Exception], route: str
) -> None:
    """The customer learns of it; the app's own key never steps in."""
    key = Secret(f"sk-or-v1-acme-{ending}")
    client = openai_sdk(_base(vendors, route))
    client.client.max_retries = 0
    with bind_caller(caller(credentials=(Credential(api_key=key),))), pytest.raises(error):
        flavour.run(client.ask())
    assert [key.fingerprint] == [call["paid_by"]["fingerprint"] for call in vendors.calls(wait=1)]
    assert "error" == calls.next().outcome


@every_sdk
@pytest.mark.parametrize("route", ["gateway", "openrouter"])
def test_a_refused_call_is_one_attempt_and_a_typed_error(
    sdk: Any, flavour: Flavour, vendors: Sandbox, calls: Calls, route: str
) -> None:
    """What the app's developer sees says what to do, and nothing was sent."""
    expected = {
        OpenAI: openai.AuthenticationError,
        OpenRouter: openrouter.errors.OpenRouterError,
        Raw: (httpx.HTTPStatusError, httpx2.HTTPStatusError),
    }
    client = sdk(_base(vendors, route), settings={"byok": "only"})
    with bind_caller(caller(credentials=())), pytest.raises(expected[type(client)]) as caught:
        flavour.run(client.ask())
    if not isinstance(client, Raw):
        assert "byok='only'" in str(caught.value)
    assert [] == vendors.calls()
    assert calls.none_left()


def test_a_refusal_that_is_raised(openai_sdk: Any, flavour: Flavour, vendors: Sandbox) -> None:
    """refuse='raise' lets our own error through where the SDK does."""
    client = openai_sdk(vendors.openrouter_url, settings={"byok": "only"}, refuse="raise")
    with bind_caller(None), pytest.raises(Exception, match="byok='only'"):
        flavour.run(client.ask())
    assert [] == vendors.calls()

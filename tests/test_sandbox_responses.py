"""The sandbox's Responses API, read by the real SDKs: answers, events, errors, who pays."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_requests import APP_KEY, USER_KEY, encoded
from tests.support.sandbox_sdks import VENDORS, base_url, openai_sdk, openrouter_sdk, post

pytest_plugins = ["kwai_middleware.testing"]

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
HELLO = "Hello you there"
OPENING = ["response.created", "response.in_progress"]
TOLD = {
    "echo": ["message"],
    "tools": ["function_call"],
    "parallel-tools": ["function_call", "function_call"],
    "reasoning": ["reasoning", "message"],
    "reasoning-details": ["reasoning", "message"],
    "refusal": ["message"],
    "images": ["message", "image_generation_call"],
    "annotations": ["message"],
    "audio": ["message"],
    "huge-0.1": ["message"],
}


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """What an answer streams, but for comments and `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def told(output: list[Any]) -> list[dict[str, Any]]:
    """Items as JSON, without what differs from answer to answer and what the SDK reads into them."""
    items = [item.model_dump(mode="json", exclude={"id", "parsed_arguments"}) for item in output]
    for item in items:
        for part in item.get("content") or []:
            part.pop("parsed", None)
    return items


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("scenario", TOLD)
def test_a_stream_builds_up_the_same_items_as_the_answer_in_one_piece(
    kwai_sandbox: Sandbox, vendor: str, scenario: str
) -> None:
    """OpenAI's SDK reads every kind of item, and puts a stream together to what it would have got at once."""
    asked: Any = {"model": f"sandbox/{scenario}", "input": HELLO, "tools": [WEATHER]}
    with openai_sdk(kwai_sandbox, vendor) as llm:
        whole = llm.responses.create(**asked)
        with llm.responses.stream(**asked) as stream:
            numbers = [event.sequence_number for event in stream]
            streamed = stream.get_final_response()
    assert TOLD[scenario] == [item.type for item in whole.output]
    assert told(whole.output) == told(streamed.output)
    assert list(range(len(numbers))) == numbers
    assert ("completed", whole.usage) == (streamed.status, streamed.usage)


@pytest.mark.parametrize("scenario", [*TOLD, "length", "stream-error"])
@pytest.mark.parametrize("stream", [False, True])
def test_openrouters_own_sdk_reads_the_answers(kwai_sandbox: Sandbox, scenario: str, stream: bool) -> None:
    """OpenRouter's SDK, which checks every member, takes each answer and each event."""
    asked: Any = {"model": f"sandbox/{scenario}", "input": HELLO, "tools": [WEATHER], "stream": stream}
    with openrouter_sdk(kwai_sandbox) as llm:
        answer = llm.responses.send(**asked)
        if stream:
            with answer as read:
                seen = list(read)
            assert "response.created" == seen[0].type
            assert "UNKNOWN" not in [event.type for event in seen]
            answer = seen[-1].response
    assert {"length": "incomplete", "stream-error": "failed"}.get(scenario, "completed") == answer.status
    assert answer.usage.cost > 0


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_events_are_openais(kwai_sandbox: Sandbox, vendor: str) -> None:
    """The kinds come in the order of the reference, each piece of text as it is told."""
    streamed = events(post(kwai_sandbox, vendor, "responses", {"model": "any", "input": HELLO, "stream": True}))
    message = ["output_item.added", "content_part.added", *["output_text.delta"] * 3, "output_text.done"]
    closing = ["content_part.done", "output_item.done", "completed"]
    assert OPENING + [f"response.{kind}" for kind in message + closing] == [event["type"] for event in streamed]
    assert ["Hello", " you", " there"] == [event["delta"] for event in streamed if "delta" in event]
    final = streamed[-1]["response"]
    assert final["output"][0] == streamed[-2]["item"]
    assert (final["id"].startswith("resp_" if vendor == "gateway" else "gen-"), None) == (True, final["error"])
    [call] = kwai_sandbox.calls(wait=1, route=vendor)
    assert ("any", True, 200, "sent", []) == tuple(
        call[name] for name in ("model", "stream", "status", "outcome", "forwarded")
    )


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_bill_follows_from_the_texts(kwai_sandbox: Sandbox, vendor: str) -> None:
    """Instructions and every item of the input count; OpenRouter adds what it cost."""
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "What is up?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look"}]},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "Rain"},
    ]
    body = {"model": "sandbox/tools", "instructions": "Be nice", "input": items, "tools": [WEATHER]}
    answer = post(kwai_sandbox, vendor, "responses", body).json()
    assert "Rain" == answer["output"][0]["content"][0]["text"]
    # Five texts of 2, 3, 1, 3 and 1 tokens, and 4 for each.
    tokens = {"input_tokens": 30, "output_tokens": 1, "total_tokens": 31}
    details = {
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    cost = {
        "cost": 1.65e-05,
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": 1.65e-05,
            "upstream_inference_input_cost": 1.5e-05,
            "upstream_inference_output_cost": 1.5e-06,
        },
    }
    assert tokens | details | (cost if vendor == "openrouter" else {}) == answer["usage"]


def test_an_account_that_pays_the_provider_is_charged_the_fee(kwai_sandbox: Sandbox) -> None:
    """OpenRouter's cost is its own fee then, and the provider's bill stands beside it."""
    usage = post(kwai_sandbox, "openrouter", "responses", {"model": "sandbox/byok", "input": HELLO}).json()["usage"]
    assert (True, 5e-07, 1e-05) == (
        usage["is_byok"],
        usage["cost"],
        usage["cost_details"]["upstream_inference_cost"],
    )


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("scenario", "reason"), [("length", "max_output_tokens"), ("content-filter", "content_filter")]
)
def test_a_text_that_breaks_off_is_incomplete(kwai_sandbox: Sandbox, vendor: str, scenario: str, reason: str) -> None:
    """The answer and its last item say so, and why, with the usage."""
    body = {"model": f"sandbox/{scenario}", "input": HELLO}
    whole = post(kwai_sandbox, vendor, "responses", body).json()
    last = events(post(kwai_sandbox, vendor, "responses", {**body, "stream": True}))[-1]
    assert "response.incomplete" == last["type"]
    for answer in (whole, last["response"]):
        assert ("incomplete", {"reason": reason}) == (answer["status"], answer["incomplete_details"])
        assert ("incomplete", 8) == (answer["output"][-1]["status"], answer["usage"]["input_tokens"])


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_response_that_fails_says_so_after_the_200(kwai_sandbox: Sandbox, vendor: str) -> None:
    """Half of the text is out by then; OpenRouter's own type of the error stands at the top of the response."""
    body = {"model": "sandbox/stream-error", "input": HELLO}
    whole = post(kwai_sandbox, vendor, "responses", body)
    streamed = events(post(kwai_sandbox, vendor, "responses", {**body, "stream": True}))
    assert (200, "response.failed") == (whole.status_code, streamed[-1]["type"])
    for answer in (whole.json(), streamed[-1]["response"]):
        assert ("failed", "server_error") == (answer["status"], answer["error"]["code"])
        assert "Hello you" == answer["output"][0]["content"][0]["text"]
        assert ("provider_unavailable" if vendor == "openrouter" else None) == answer.get("error_type")
    at_top = post(kwai_sandbox, vendor, "responses", {**body, "model": "sandbox/error-in-200-at-top"}).json()
    assert "server_error" == at_top["error"]["code"]
    assert "output" not in at_top


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_error_event_ends_a_stream_without_a_response(kwai_sandbox: Sandbox, vendor: str) -> None:
    """The reference has its members at the top, recordings one level below: each vendor sends one of them."""
    body = {"model": "sandbox/error-in-200", "input": HELLO, "stream": True}
    answer = post(kwai_sandbox, vendor, "responses", body)
    last = events(answer)[-1]
    assert ("error", "[DONE]" in answer.text) == (last["type"], False)
    assert "Provider returned error" == (last["error"] if vendor == "gateway" else last)["message"]


def test_openais_sdk_raises_the_error_event(kwai_sandbox: Sandbox) -> None:
    """What the gateway hands on in mid-stream reaches the app as an exception of its SDK."""
    with (
        openai_sdk(kwai_sandbox, "gateway") as llm,
        pytest.raises(openai.APIError, match="Provider returned error"),
        llm.responses.create(model="sandbox/error-in-200", input=HELLO, stream=True) as stream,
    ):
        list(stream)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("scenario", "last"),
    [("no-done", "response.output_item.done"), ("comments", None), ("late-end-0.01", "response.completed")],
)
def test_a_stream_may_end_otherwise(kwai_sandbox: Sandbox, vendor: str, scenario: str, last: str | None) -> None:
    """Without its last event, without any, or later than it."""
    body = {"model": f"sandbox/{scenario}", "input": HELLO, "stream": True}
    answer = post(kwai_sandbox, vendor, "responses", body)
    assert ([last] if last else []) == [event["type"] for event in events(answer)][-1:]
    assert (vendor == "openrouter" and last == "response.completed") == ("data: [DONE]" in answer.text)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("stream", [False, True])
def test_json_may_break_off(kwai_sandbox: Sandbox, vendor: str, stream: bool) -> None:
    """The whole does, or one event of many."""
    body = {"model": "sandbox/malformed", "input": HELLO, "stream": stream}
    answer = post(kwai_sandbox, vendor, "responses", body)
    with pytest.raises(ValueError):
        events(answer) if stream else answer.json()


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_reset_comes_in_the_middle_of_the_text(kwai_sandbox: Sandbox, vendor: str) -> None:
    """Half of the pieces are out, and neither the text nor the answer is closed."""
    body = {"model": "sandbox/cut", "input": HELLO, "stream": True}
    seen = b""
    with (
        httpx.Client(trust_env=False, headers={"authorization": "Bearer any"}) as client,
        client.stream("POST", base_url(kwai_sandbox, vendor) + "responses", json=body) as answer,
        pytest.raises(httpx.TransportError),
    ):
        for piece in answer.iter_raw():
            seen += piece
    assert (True, False) == (b" you" in seen, b"output_text.done" in seen)
    [call] = kwai_sandbox.calls(wait=1, outcome="cut")
    assert "sandbox/cut" == call["model"]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("asked", [None, "", [], 7, {}])
def test_a_request_needs_an_input(kwai_sandbox: Sandbox, vendor: str, asked: object) -> None:
    """A text or items, and not none of them; a chat request has neither."""
    answer = post(kwai_sandbox, vendor, "responses", {"model": "any", "input": asked, "messages": [{"role": "user"}]})
    assert (400, "input: a text or items are required") == (answer.status_code, answer.json()["error"]["message"])


@pytest.mark.parametrize("member", [{"store": True}, {"previous_response_id": "resp_1"}])
def test_openrouter_keeps_no_responses(kwai_sandbox: Sandbox, member: dict[str, object]) -> None:
    """It refuses to keep one and to go on from one, which the gateway does not."""
    body = {"model": "any", "input": HELLO, **member}
    refused, taken = (post(kwai_sandbox, vendor, "responses", body) for vendor in ("openrouter", "gateway"))
    assert (400, 200) == (refused.status_code, taken.status_code)
    assert (400, "invalid_request") == (refused.json()["error"]["code"], refused.json()["error_type"])
    assert member.items() <= taken.json().items()


@pytest.mark.parametrize(
    ("ending", "status", "error_type"),
    [("dead", 401, "authentication"), ("broke", 402, "payment_required"), ("slow", 429, "rate_limit_exceeded")],
)
def test_a_bad_key_is_refused(kwai_sandbox: Sandbox, ending: str, status: int, error_type: str) -> None:
    """By OpenRouter with its type at the top of the error, by the gateway as it hands on a provider's error."""
    key = f"sk-or-v1-acme-{ending}"
    with openai_sdk(kwai_sandbox, "openrouter", key) as llm, pytest.raises(openai.APIStatusError) as refused:
        llm.responses.create(model="any", input=HELLO)
    assert (status, error_type) == (refused.value.status_code, refused.value.response.json()["error_type"])
    params = {"customer_credentials": {"openrouter": {"api_key": key}}}
    with openai_sdk(kwai_sandbox, "gateway") as llm, pytest.raises(openai.APIStatusError) as handed_on:
        llm.responses.create(model="any", input=HELLO, extra_body={"respan_params": params})
    assert (status, str(status)) == (handed_on.value.status_code, handed_on.value.code)


def test_what_was_flagged_stands_in_openrouters_error(kwai_sandbox: Sandbox) -> None:
    """The metadata of a moderation is told in this format too."""
    error = post(kwai_sandbox, "openrouter", "responses", {"model": "sandbox/moderated", "input": HELLO}).json()
    assert (403, HELLO) == (error["error"]["code"], error["error"]["metadata"]["flagged_input"])


@pytest.mark.parametrize("door", ["respan_params", "header"])
def test_the_customers_key_pays_at_the_gateway(kwai_sandbox: Sandbox, door: str) -> None:
    """Parameters stand in `respan_params` or in the header; the journal shows who pays, for whom, and each door."""
    params = {"customer_credentials": {"openrouter": {"api_key": USER_KEY}}, "customer_identifier": "acme"}
    with openai_sdk(kwai_sandbox, "gateway") as llm:
        llm.responses.create(
            model="any",
            input=HELLO,
            extra_body={"respan_params": params} if door == "respan_params" else {},
            extra_headers={"X-Data-Respan-Params": encoded(params)} if door == "header" else {},
        )
    [call] = kwai_sandbox.calls(wait=1, customer="acme")
    assert {"source": "customer_credentials", "fingerprint": Secret(USER_KEY).fingerprint} == call["paid_by"]
    prefix = "respan_params." if door == "respan_params" else "header X-Data-Respan-Params: "
    places = ["customer_credentials.openrouter.api_key", "customer_identifier"]
    assert [prefix + place for place in places] == [each["door"] for each in call["doors"]]
    assert ([], "gateway") == (call["forwarded"], call["logged_by"])


def test_credentials_at_the_top_level_go_on_to_the_provider(kwai_sandbox: Sandbox) -> None:
    """The gateway takes few parameters there; a key among the members is a leak, and the app pays."""
    body = {
        "model": "any",
        "input": HELLO,
        "customer_identifier": "acme",
        "customer_credentials": {"openrouter": {"api_key": USER_KEY}},
    }
    post(kwai_sandbox, "gateway", "responses", body)
    [call] = kwai_sandbox.calls(wait=1, customer="acme")
    assert {"source": "authorization", "fingerprint": Secret(APP_KEY).fingerprint} == call["paid_by"]
    assert ["customer_credentials"] == call["forwarded"]
    assert "customer_credentials.openrouter.api_key" in [each["door"] for each in call["doors"]]


def test_openrouter_knows_the_user_by_either_name(kwai_sandbox: Sandbox) -> None:
    """`safety_identifier` says who it is, else `user`."""
    for member in ({"safety_identifier": "acme", "user": "other"}, {"user": "acme"}):
        post(kwai_sandbox, "openrouter", "responses", {"model": "any", "input": HELLO, **member})
    assert 2 == len(kwai_sandbox.calls(wait=2, customer="acme"))

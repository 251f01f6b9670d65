"""Every scenario once, as a client sees it, on both vendors' endpoints."""

from __future__ import annotations

import gzip
import json
import socket
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import zstandard

from kwai_middleware.sandbox import Sandbox
from kwai_middleware.sandbox.encodings import content_encoder
from kwai_middleware.sandbox.scenarios import scenarios

pytest_plugins = ["kwai_middleware.testing"]

HELLO = [{"role": "user", "content": "one two three four"}]
ROUTES = ("gateway", "openrouter")
both_routes = pytest.mark.parametrize("route", ROUTES)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "divide",
            "parameters": {
                "type": "object",
                "properties": {
                    "of": {"type": "number"},
                    "by": {"type": "integer"},
                    "how": {"enum": ["exact", "rounded"]},
                    "why": {"type": "string"},
                    "any": {"type": ["string", "null"]},
                    "odd": True,
                },
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]


def url_of(sandbox: Sandbox, route: str) -> str:
    return f"{sandbox.gateway_url if route == 'gateway' else sandbox.openrouter_url + '/'}chat/completions"


def ask(sandbox: Sandbox, route: str, model: str, *, timeout: float = 20.0, **body: Any) -> httpx.Response:
    headers = {"authorization": "Bearer sk-or-v1-acme", **body.pop("headers", {})}
    with httpx.Client(trust_env=False, timeout=timeout) as client:
        return client.post(
            url_of(sandbox, route) + body.pop("query", ""),
            json={"model": model, "messages": HELLO, **body},
            headers=headers,
        )


def events(answer: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def said(chunks: list[Any]) -> str:
    choices = [choice for chunk in chunks if isinstance(chunk, dict) for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@both_routes
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 413, 422, 424, 429, 499, 500, 502, 503, 524, 529])
def test_an_error_status_comes_in_the_vendors_shape(kwai_sandbox: Sandbox, route: str, status: int) -> None:
    """`sandbox/error-<status>` answers that status, with a code in the body and Retry-After where vendors send it."""
    answer = ask(kwai_sandbox, route, f"sandbox/error-{status}")
    assert (status, str(status)) == (answer.status_code, str(answer.json()["error"]["code"]))
    assert (status in (429, 503)) == ("retry-after" in answer.headers)
    assert [status] == [call["status"] for call in kwai_sandbox.calls(wait=1, model=f"sandbox/error-{status}")]


def test_an_error_status_that_is_none_is_explained(kwai_sandbox: Sandbox) -> None:
    """A number that is no error status answers 400 and says what there is."""
    answer = ask(kwai_sandbox, "gateway", "sandbox/error-200")
    assert (400, "sandbox/error-<status> knows 400 to 599") == (answer.status_code, answer.json()["error"]["message"])


@both_routes
def test_stream_error(kwai_sandbox: Sandbox, route: str) -> None:
    """The error comes after half of the text and before [DONE]; OpenRouter's carries the usage and no finish reason."""
    chunks = events(ask(kwai_sandbox, route, "sandbox/stream-error", stream=True))
    assert ("one two", "[DONE]") == (said(chunks), chunks[-1])
    assert str(chunks[-2]["error"]["code"]) == "502"
    if route == "openrouter":
        assert chunks[-2]["choices"][0]["finish_reason"] is None
        assert chunks[-2]["usage"]["total_tokens"] > 0


@both_routes
def test_error_in_200(kwai_sandbox: Sandbox, route: str) -> None:
    """The error stands in the choice beside half of the text; streamed, it is the last event."""
    answer = ask(kwai_sandbox, route, "sandbox/error-in-200")
    [choice] = answer.json()["choices"]
    chunks = events(ask(kwai_sandbox, route, "sandbox/error-in-200", stream=True))
    assert (200, "error", "one two") == (answer.status_code, choice["finish_reason"], choice["message"]["content"])
    assert str(choice["error"]["code"]) == "502"
    assert "error" in chunks[-1]
    assert (chunks[-1]["choices"][0]["finish_reason"] if route == "openrouter" else "error") == "error"


@both_routes
def test_error_in_200_at_the_top(kwai_sandbox: Sandbox, route: str) -> None:
    """The error takes the place of the choices."""
    answer = ask(kwai_sandbox, route, "sandbox/error-in-200-at-top")
    assert (200, True, False) == (answer.status_code, "error" in answer.json(), "choices" in answer.json())


@both_routes
@pytest.mark.parametrize("stream", [False, True])
def test_slow(kwai_sandbox: Sandbox, route: str, stream: bool) -> None:
    """The first token waits as long as the name says; the number may have a fraction."""
    began = time.monotonic()
    answer = ask(kwai_sandbox, route, "sandbox/slow-0.3", stream=stream)
    assert time.monotonic() - began >= 0.3
    assert answer.status_code == 200


@both_routes
@pytest.mark.parametrize(("model", "pieces"), [("sandbox/long", 200), ("sandbox/long-200", 200), ("sandbox/long-3", 3)])
def test_long(kwai_sandbox: Sandbox, route: str, model: str, pieces: int) -> None:
    """The answer has exactly as many pieces as the name says."""
    chunks = events(ask(kwai_sandbox, route, model, stream=True))
    assert pieces == sum(1 for chunk in chunks if isinstance(chunk, dict) and said([chunk]))


@both_routes
@pytest.mark.parametrize("stream", [False, True])
def test_late_end(kwai_sandbox: Sandbox, route: str, stream: bool) -> None:
    """Everything is there, [DONE] included, while the body has not ended yet."""
    body = {"model": "sandbox/late-end-0.4", "messages": HELLO, "stream": stream}
    with (
        httpx.Client(trust_env=False) as client,
        client.stream(
            "POST", url_of(kwai_sandbox, route), json=body, headers={"authorization": "Bearer sk-or-v1-acme"}
        ) as answer,
    ):
        arrived, whole_at, text = [], 0.0, ""
        for text_piece in answer.iter_text():
            arrived.append(text_piece)
            text = "".join(arrived)
            whole_at = time.monotonic()
        late = time.monotonic() - whole_at
    assert late >= 0.3
    assert text.endswith("data: [DONE]\n\n") if stream else json.loads(text)


@both_routes
def test_no_done(kwai_sandbox: Sandbox, route: str) -> None:
    """The text is whole, and then the body just ends."""
    chunks = events(ask(kwai_sandbox, route, "sandbox/no-done", stream=True))
    assert said(chunks) == "one two three four"
    assert "[DONE]" not in chunks
    assert all(chunk["choices"][0]["finish_reason"] is None and "usage" not in chunk for chunk in chunks)
    assert ask(kwai_sandbox, route, "sandbox/no-done").json()["choices"][0]["finish_reason"] == "stop"


@both_routes
@pytest.mark.parametrize("stream", [False, True])
def test_cut(kwai_sandbox: Sandbox, route: str, stream: bool) -> None:
    """Half of the answer arrives, then the connection is reset, not closed."""
    body = json.dumps({"model": "sandbox/cut", "messages": HELLO, "stream": stream}).encode()
    head = f"POST {httpx.URL(url_of(kwai_sandbox, route)).path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n"
    arrived = b""
    address = ("127.0.0.1", httpx.URL(kwai_sandbox.url).port)
    with socket.create_connection(address), socket.create_connection(address, timeout=20) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        with pytest.raises(ConnectionResetError):
            while piece := connection.recv(65536):
                arrived += piece
    assert b'" two"' in arrived if stream else b'"model":"sandbox/cut"' in arrived
    assert not arrived.endswith((b"\r\n0\r\n\r\n", b"}"))
    assert b"completion_tokens_details" not in arrived
    kwai_sandbox.calls(wait=1, outcome="cut")


@both_routes
@pytest.mark.parametrize("stream", [False, True])
def test_stall(kwai_sandbox: Sandbox, route: str, stream: bool) -> None:
    """Half of the answer arrives and then nothing, until the client gives up, which the journal shows."""
    with pytest.raises(httpx.ReadTimeout):
        ask(kwai_sandbox, route, "sandbox/stall", stream=stream, timeout=0.3)
    assert [200] == [call["status"] for call in kwai_sandbox.calls(wait=1, outcome="client left")]


@both_routes
def test_a_client_that_leaves_a_stream_is_noticed(kwai_sandbox: Sandbox, route: str) -> None:
    """When the client breaks off, the answer ends early and the journal says who ended it."""
    body = {"model": "sandbox/long-100000", "messages": HELLO, "stream": True}
    headers = {"authorization": "Bearer sk-or-v1-acme"}
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", url_of(kwai_sandbox, route), json=body, headers=headers) as answer,
    ):
        assert b"word0" in next(answer.iter_bytes(4096))
    kwai_sandbox.calls(wait=1, outcome="client left")


@both_routes
def test_hang(kwai_sandbox: Sandbox, route: str) -> None:
    """Nothing is answered, until the client gives up, which the journal shows."""
    with pytest.raises(httpx.ReadTimeout):
        ask(kwai_sandbox, route, "sandbox/hang", timeout=0.3)
    assert [None] == [call["status"] for call in kwai_sandbox.calls(wait=1, outcome="client left")]


@both_routes
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("encoding", "decode"),
    [("gzip", gzip.decompress), ("zstd", lambda sent: zstandard.ZstdDecompressor().decompressobj().decompress(sent))],
)
def test_an_encoding_is_used_if_the_client_accepts_it(
    kwai_sandbox: Sandbox, route: str, stream: bool, encoding: str, decode: Callable[[bytes], bytes]
) -> None:
    """The body is encoded as the model's name says and the client accepts, and plain for any other client."""
    request = httpx.Request(
        "POST",
        url_of(kwai_sandbox, route),
        json={"model": f"sandbox/{encoding}", "messages": HELLO, "stream": stream},
        headers={"authorization": "Bearer sk-or-v1-acme", "accept-encoding": f"br;q=0.1, {encoding};q=1"},
    )
    with httpx.Client(trust_env=False) as client:
        answer = client.send(request, stream=True)
        sent = b"".join(answer.iter_raw())
    plain = ask(kwai_sandbox, route, f"sandbox/{encoding}", headers={"accept-encoding": "identity"})
    assert encoding == answer.headers["content-encoding"]
    assert b"three" in decode(sent)
    assert "content-encoding" not in plain.headers
    assert plain.json()["choices"][0]["message"]["content"] == "one two three four"


@pytest.mark.parametrize(
    ("encoding", "decoder"),
    [("gzip", lambda: zlib.decompressobj(wbits=31)), ("zstd", lambda: zstandard.ZstdDecompressor().decompressobj())],
)
def test_each_piece_can_be_decoded_as_it_arrives(encoding: str, decoder: Callable[[], Any]) -> None:
    """An encoded stream holds nothing back: what was said so far is what can be decoded so far."""
    encoder, decoding = content_encoder(encoding, f"identity, {encoding}"), decoder()
    assert encoder is not None
    assert [b"one", b"two"] == [decoding.decompress(encoder.piece(piece)) for piece in (b"one", b"two")]
    assert decoding.decompress(encoder.end()) == b""


def test_zstd_needs_its_package(kwai_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `zstandard` is not installed the answer comes plain."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    answer = ask(kwai_sandbox, "gateway", "sandbox/zstd", headers={"accept-encoding": "zstd"})
    assert (200, False) == (answer.status_code, "content-encoding" in answer.headers)


@both_routes
def test_redirect_307(kwai_sandbox: Sandbox, route: str) -> None:
    """The answer sends the client wherever the request says, in the query or in `metadata`."""
    target = "http://127.0.0.1:9/elsewhere"
    by_query = ask(kwai_sandbox, route, "sandbox/redirect-307", query=f"?redirect_to={target}")
    by_metadata = ask(kwai_sandbox, route, "sandbox/redirect-307", metadata={"redirect_to": target})
    nowhere = ask(kwai_sandbox, route, "sandbox/redirect-307")
    split = ask(kwai_sandbox, route, "sandbox/redirect-307", metadata={"redirect_to": "http://a/\r\nx: y"})
    assert [(307, target)] * 2 == [
        (answer.status_code, answer.headers["location"]) for answer in (by_query, by_metadata)
    ]
    assert [400, 400] == [nowhere.status_code, split.status_code]


@both_routes
def test_tools(kwai_sandbox: Sandbox, route: str) -> None:
    """Every function is called with arguments that fit its schema; streamed, the arguments come in parts."""
    [choice] = ask(kwai_sandbox, route, "sandbox/tools", tools=TOOLS).json()["choices"]
    chunks = events(ask(kwai_sandbox, route, "sandbox/tools", tools=TOOLS, stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if isinstance(chunk, dict) and chunk["choices"]]
    parts = [part for delta in deltas for part in delta.get("tool_calls", ())]
    calls = {
        call["function"]["name"]: json.loads(call["function"]["arguments"]) for call in choice["message"]["tool_calls"]
    }
    text = "one two three four"
    assert {"divide": {"of": 0.5, "by": 1, "how": "exact", "why": text, "any": text, "odd": text}, "now": {}} == calls
    assert choice["finish_reason"] == "tool_calls"
    assert calls["divide"] == json.loads("".join(p["function"]["arguments"] for p in parts if p["index"] == 0))
    assert ["divide", "now"] == [part["function"]["name"] for part in parts if "name" in part["function"]]


@both_routes
def test_tools_answers_in_words_when_there_is_nothing_to_call(kwai_sandbox: Sandbox, route: str) -> None:
    """Without functions, or after a result, the model repeats what it was told: an agent's loop ends."""
    result = [*HELLO, {"role": "tool", "tool_call_id": "call_0", "content": "42"}]
    contents = [
        answer.json()["choices"][0]["message"]["content"]
        for answer in (
            ask(kwai_sandbox, route, "sandbox/tools"),
            ask(kwai_sandbox, route, "sandbox/tools", tools=TOOLS, messages=result),
            ask(kwai_sandbox, route, "sandbox/tools", tools=TOOLS, messages=["no object"]),
        )
    ]
    assert ["one two three four", "42"] == contents[:2]


@both_routes
def test_reasoning(kwai_sandbox: Sandbox, route: str) -> None:
    """The reasoning travels in the vendor's own member, before the text, and is counted."""
    answer = ask(kwai_sandbox, route, "sandbox/reasoning").json()
    chunks = events(ask(kwai_sandbox, route, "sandbox/reasoning", stream=True))
    member = "reasoning" if route == "openrouter" else "reasoning_content"
    thought = "The user said 18 characters. I repeat them."
    assert thought == answer["choices"][0]["message"][member]
    assert thought == chunks[1]["choices"][0]["delta"][member]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 11


def choices_of(chunks: list[Any], index: int = 0) -> list[Any]:
    """The deltas of one choice, in order."""
    choices = [choice for chunk in chunks if isinstance(chunk, dict) for choice in chunk.get("choices", ())]
    return [choice["delta"] for choice in choices if choice["index"] == index]


@both_routes
def test_several_choices(kwai_sandbox: Sandbox, route: str) -> None:
    """As many choices as asked for, each with a text of its own; streamed, they come in turn and end one by one."""
    answer = ask(kwai_sandbox, route, "sandbox/echo", n=3).json()
    chunks = events(ask(kwai_sandbox, route, "sandbox/echo", n=3, stream=True))
    texts = ["one two three four", "one two three four (choice 1)", "one two three four (choice 2)"]
    told = [choice for chunk in chunks[:-1] for choice in chunk["choices"]]

    assert texts == [choice["message"]["content"] for choice in answer["choices"]]
    assert texts == ["".join(delta.get("content") or "" for delta in choices_of(chunks, index)) for index in range(3)]
    assert [0, 1, 2, 0, 1, 2, 0, 1, 2] == [choice["index"] for choice in told[:9]]
    assert [0, 1, 2] == [choice["index"] for choice in told if choice["finish_reason"]]
    assert 5 + 8 + 8 == answer["usage"]["completion_tokens"]


@both_routes
@pytest.mark.parametrize("number", [0, 129, -1, 1.5, "2", True, None])
def test_a_number_of_choices_that_is_none_is_one(kwai_sandbox: Sandbox, route: str, number: object) -> None:
    """What is no sensible number of choices is not believed."""
    assert 1 == len(ask(kwai_sandbox, route, "sandbox/echo", n=number).json()["choices"])


@both_routes
def test_parallel_tools(kwai_sandbox: Sandbox, route: str) -> None:
    """Every function is called twice; streamed, the parts of all calls come in turn."""
    [choice] = ask(kwai_sandbox, route, "sandbox/parallel-tools", tools=TOOLS).json()["choices"]
    chunks = events(ask(kwai_sandbox, route, "sandbox/parallel-tools", tools=TOOLS, stream=True))
    parts = [part for delta in choices_of(chunks) for part in delta.get("tool_calls", ())]
    assert ["call_0", "call_1", "call_0_again", "call_1_again"] == [
        call["id"] for call in choice["message"]["tool_calls"]
    ]
    assert [0, 1, 2, 3] * 3 == [part["index"] for part in parts]
    assert said(events(ask(kwai_sandbox, route, "sandbox/parallel-tools", stream=True))) == "one two three four"


def test_reasoning_details(kwai_sandbox: Sandbox) -> None:
    """OpenRouter's reasoning comes as text with a signature behind it, summed up, and sealed; each has its number."""
    [choice] = ask(kwai_sandbox, "openrouter", "sandbox/reasoning-details").json()["choices"]
    chunks = events(ask(kwai_sandbox, "openrouter", "sandbox/reasoning-details", stream=True))
    pieces = [detail for delta in choices_of(chunks) for detail in delta.get("reasoning_details", ())]
    kinds = ["reasoning.text", "reasoning.summary", "reasoning.encrypted"]
    whole = choice["message"]["reasoning_details"]
    assert kinds == [detail["type"] for detail in whole]
    assert [0, 1, 2] == [detail["index"] for detail in whole]
    assert [kinds[0]] * 3 + kinds[1:] == [piece["type"] for piece in pieces]
    assert whole[0]["text"] == "".join(piece.get("text", "") for piece in pieces) == choice["message"]["reasoning"]
    assert [None, None, whole[0]["signature"]] == [piece["signature"] for piece in pieces[:3]]


@both_routes
@pytest.mark.parametrize(
    ("model", "member"),
    [
        ("sandbox/refusal", "refusal"),
        ("sandbox/images", "images"),
        ("sandbox/audio", "audio"),
        ("sandbox/annotations", "annotations"),
    ],
)
def test_what_a_message_can_hold_beside_its_text(kwai_sandbox: Sandbox, route: str, model: str, member: str) -> None:
    """Refusals, pictures, sound and sources stand in the member that is made for them; streamed, in pieces of it."""
    [choice] = ask(kwai_sandbox, route, model).json()["choices"]
    chunks = events(ask(kwai_sandbox, route, model, stream=True))
    whole = choice["message"][member]
    pieces = [delta[member] for delta in choices_of(chunks) if delta.get(member)]
    if member == "refusal":
        assert ("I cannot help with that.", 2) == ("".join(pieces), len(pieces))
        assert "".join(pieces) == whole
    elif member == "audio":
        assert {name: "".join(piece.get(name, "") for piece in pieces) for name in ("data", "transcript")} == {
            name: whole[name] for name in ("data", "transcript")
        }
        assert ({whole["id"]}, whole["expires_at"]) == ({piece["id"] for piece in pieces}, pieces[-1]["expires_at"])
    else:
        assert whole == [item for piece in pieces for item in piece]
        assert 2 == len(whole)


@both_routes
@pytest.mark.parametrize(
    ("model", "reason"), [("sandbox/length", "length"), ("sandbox/content-filter", "content_filter")]
)
def test_an_answer_that_stops_early_says_why(kwai_sandbox: Sandbox, route: str, model: str, reason: str) -> None:
    """Half of the text comes, and the reason why there is no more."""
    [choice] = ask(kwai_sandbox, route, model).json()["choices"]
    chunks = events(ask(kwai_sandbox, route, model, stream=True))
    assert ("one two", reason) == (choice["message"]["content"], choice["finish_reason"])
    reasons = [choice["finish_reason"] for chunk in chunks[:-1] for choice in chunk["choices"]]
    assert ("one two", [reason]) == (said(chunks), [each for each in reasons if each])


def test_cached(kwai_sandbox: Sandbox) -> None:
    """Half of the prompt came from the cache, and OpenRouter says that the other half went there."""
    details = ask(kwai_sandbox, "openrouter", "sandbox/cached").json()["usage"]["prompt_tokens_details"]
    assert {"cached_tokens": 4, "cache_write_tokens": 5, "audio_tokens": 0} == details
    gateway = ask(kwai_sandbox, "gateway", "sandbox/cached").json()["usage"]["prompt_tokens_details"]
    assert {"cached_tokens": 4, "audio_tokens": 0} == gateway


@pytest.mark.parametrize(("model", "status"), [("sandbox/provider-error", 502), ("sandbox/provider-error-429", 429)])
def test_provider_error(kwai_sandbox: Sandbox, model: str, status: int) -> None:
    """OpenRouter says whose failure it was, and hands on the provider's own words."""
    answer = ask(kwai_sandbox, "openrouter", model)
    error = answer.json()["error"]
    assert (status, status, "Provider returned error") == (answer.status_code, error["code"], error["message"])
    assert "Sandbox" == error["metadata"]["provider_name"]
    assert f"The provider's own words for {status}" == json.loads(error["metadata"]["raw"])["error"]["message"]
    assert 400 == ask(kwai_sandbox, "openrouter", "sandbox/provider-error-200").status_code


def test_moderated(kwai_sandbox: Sandbox) -> None:
    """OpenRouter's moderation says what was found, and where."""
    answer = ask(kwai_sandbox, "openrouter", "sandbox/moderated")
    metadata = answer.json()["error"]["metadata"]
    assert (403, ["violence", "harassment"], "one two three four", "permission_denied") == (
        answer.status_code, metadata["reasons"], metadata["flagged_input"], metadata["error_type"],
    )  # fmt: skip


@both_routes
def test_comments(kwai_sandbox: Sandbox, route: str) -> None:
    """A stream of nothing but comments has no event; the same model answers whole as any other."""
    answer = ask(kwai_sandbox, route, "sandbox/comments", stream=True)
    assert 20 <= len(answer.text.strip().split("\n\n"))
    assert {":"} == {line[:1] for line in answer.text.splitlines() if line}
    assert (
        "one two three four" == ask(kwai_sandbox, route, "sandbox/comments").json()["choices"][0]["message"]["content"]
    )


@both_routes
def test_malformed(kwai_sandbox: Sandbox, route: str) -> None:
    """The whole breaks off; of a stream one event does, and the rest is as it should be."""
    answer = ask(kwai_sandbox, route, "sandbox/malformed")
    stream = ask(kwai_sandbox, route, "sandbox/malformed", stream=True)
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    with pytest.raises(json.JSONDecodeError):
        events(stream)
    lines = [line for line in stream.text.splitlines() if line.startswith("data: {") and line.endswith("}")]
    assert "one two three four" == said([json.loads(line.removeprefix("data: ")) for line in lines])
    assert (200, 200, True) == (answer.status_code, stream.status_code, stream.text.endswith("data: [DONE]\n\n"))


@both_routes
@pytest.mark.parametrize("stream", [False, True])
def test_huge(kwai_sandbox: Sandbox, route: str, stream: bool) -> None:
    """The text is as large as the name says, and the usage, which counts all of it, stands at the end."""
    answer = ask(kwai_sandbox, route, "sandbox/huge-2", stream=stream, stream_options={"include_usage": True})
    chunks = events(answer) if stream else [answer.json()]
    text = said(chunks) if stream else chunks[0]["choices"][0]["message"]["content"]
    assert len("one two three four") + 2_000_000 == len(text)
    assert text.startswith("one two three fourword word ")
    assert 500_005 == chunks[-2 if stream else -1]["usage"]["completion_tokens"]


def test_in_anthropics_format_an_answer_is_not_filled_up(kwai_sandbox: Sandbox) -> None:
    """The messages endpoint knows text, reasoning and tool calls; a huge answer is its beginning there."""
    with httpx.Client(trust_env=False) as client:
        answer = client.post(
            f"{kwai_sandbox.openrouter_url}/messages",
            json={"model": "sandbox/huge", "messages": HELLO, "max_tokens": 9},
            headers={"authorization": "Bearer sk-or-v1-acme"},
        )
    assert [{"type": "text", "text": "one two three four", "citations": None}] == answer.json()["content"]


@both_routes
@pytest.mark.parametrize("stream", [False, True])
def test_endless(kwai_sandbox: Sandbox, route: str, stream: bool) -> None:
    """The answer goes on until the client leaves, which the journal shows."""
    body = {"model": "sandbox/endless", "messages": HELLO, "stream": stream}
    headers = {"authorization": "Bearer sk-or-v1-acme"}
    received = 0
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", url_of(kwai_sandbox, route), json=body, headers=headers) as answer,
    ):
        for chunk in answer.iter_raw():
            received += len(chunk)
            if received > 3_000_000:
                break
    assert received > 3_000_000
    kwai_sandbox.calls(wait=1, outcome="client left")


def test_byok(kwai_sandbox: Sandbox) -> None:
    """With the account's own provider key the cost is the fee, and the provider's bill stands beside it."""
    byok = ask(kwai_sandbox, "openrouter", "sandbox/byok").json()["usage"]
    plain = ask(kwai_sandbox, "openrouter", "sandbox/echo").json()["usage"]
    assert (True, False) == (byok["is_byok"], plain["is_byok"])
    assert plain["cost"] == byok["cost_details"]["upstream_inference_cost"]
    assert round(plain["cost"] * 0.05, 10) == byok["cost"]


@both_routes
def test_what_is_nobodys_shape(kwai_sandbox: Sandbox, route: str) -> None:
    """A proxy's error page and an empty body come as they are."""
    page, empty = ask(kwai_sandbox, route, "sandbox/html-error"), ask(kwai_sandbox, route, "sandbox/empty")
    assert (502, "text/html") == (page.status_code, page.headers["content-type"])
    statuses = [ask(kwai_sandbox, route, f"sandbox/html-error-{status}").status_code for status in (200, 503, 999)]
    assert [200, 503, 502] == statuses
    assert (200, b"") == (empty.status_code, empty.content)


@both_routes
@pytest.mark.parametrize(
    "model", ["openrouter/sandbox/empty", "sandbox/echo-7", "sandbox/slow-x", "gpt-5", "sandbox/long-1234567"]
)
def test_any_other_name_echoes(kwai_sandbox: Sandbox, route: str, model: str) -> None:
    """A name that is no scenario echoes; the gateway's prefix of the provider is seen through."""
    answer = ask(kwai_sandbox, route, model)
    expected = b"" if model.endswith("empty") else b"one two three four"
    assert expected in answer.content
    assert bool(expected) == bool(answer.content)


def test_the_index_lists_every_scenario(kwai_sandbox: Sandbox) -> None:
    """`GET /sandbox/` names every scenario, every URL and every filter, and the root shows the same."""
    index = httpx.get(f"{kwai_sandbox.url}/sandbox/", trust_env=False).json()
    assert [scenario.model for scenario in scenarios()] == list(index["models"])
    assert (kwai_sandbox.gateway_url, kwai_sandbox.openrouter_url) == (index["gateway"], index["openrouter"])
    assert index == httpx.get(kwai_sandbox.url, trust_env=False).json()

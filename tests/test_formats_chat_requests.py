"""Requests for chat completions: what a record keeps of them, and what never enters one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kwai_middleware._outbound.formats import Request, chat


def test_all_that_a_record_needs_is_read() -> None:
    """Messages and parameters are kept as the app wrote them, byte for byte."""
    messages = b'[ {"role":"user", "content":"\xc3\xb6 \\u00f6"} ]'
    body = b'{"model": "m", "stream" : true, "n":2, "messages":' + messages + b',"top_p":1e-1}'

    expected = Request(
        model="m",
        stream=True,
        choices=2,
        messages=messages,
        parameters={"n": b"2", "top_p": b"1e-1"},
    )
    assert expected == chat.request(body)


def test_escaped_and_doubled_members_are_read_as_parsers_do() -> None:
    """An escaped name is the name, and the last of two members counts."""
    assert Request(model="b") == chat.request(b'{"model": "a", "m\\u006fdel": "b"}')


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b'{"model": "m"', id="cut"),
        pytest.param(b"--boundary\r\n", id="multipart"),
        pytest.param(b"\xff\xfe{\x00}\x00", id="UTF-16"),
        pytest.param(b'{"model": NaN}', id="not a number"),
        pytest.param(b"[" * 100_000, id="deeply nested"),
        pytest.param(b'{"a":' * 100_000, id="deeply nested objects"),
    ],
)
def test_what_is_no_json_object_gives_nothing(body: bytes) -> None:
    """A body that cannot be read makes an empty request and no exception."""
    assert Request() == chat.request(body)


@pytest.mark.parametrize("value", ["7", "null", '""', "[]", "{}", "true"])
def test_odd_types_give_nothing(value: str) -> None:
    """A model that is no text and a number of choices that is no number count as not given."""
    request = chat.request(f'{{"model": {value}, "stream": "yes", "n": "two"}}'.encode())

    assert (None, False, 1) == (request.model, request.stream, request.choices)


def test_texts_that_are_not_unicode_are_mended() -> None:
    """Broken UTF-8 and halves of surrogate pairs are replaced, and the rest of the request is kept."""
    request = chat.request(b'{"model": "m", "messages": [{"content": "a\xff \\ud83d"}]}')

    assert Request(model="m", messages='[{"content":"a\ufffd \ufffd"}]'.encode()) == request


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"customer_credentials": {"openrouter": {"api_key": "k"}}}, id="customer_credentials"),
        pytest.param({"customer_params": {"customer_identifier": "a"}}, id="customer_params"),
        pytest.param({"respan_params": {}}, id="respan_params"),
        pytest.param({"keywordsai_params": "{}"}, id="keywordsai_params"),
        pytest.param({"credential_override": {}}, id="credential_override"),
        pytest.param({"customer_api_keys": {}}, id="customer_api_keys"),
        pytest.param({"load_balance_models": [{"model": "m", "credentials": {}}]}, id="load balancing"),
        pytest.param({"extra_headers": {"x": "y"}}, id="extra_headers"),
        pytest.param({"openai_api_key": "k"}, id="an unknown member, by name"),
        pytest.param({"anything": {"deep": [{"apiKey": "k"}]}}, id="an unknown member, by what is in it"),
        pytest.param({"anything": "Bearer k"}, id="an unknown member, by its text"),
        pytest.param({"anything": "x" * 20_000}, id="an unknown member, too large to look at"),
        pytest.param({"metadata": {"access_token": "k"}}, id="metadata"),
        pytest.param({"tools": "k"}, id="tools that are none"),
    ],
)
def test_nothing_that_can_carry_a_key_is_kept(members: dict[str, Any]) -> None:
    """Members for keys, and unknown ones that mention a key, never enter a record."""
    assert Request(model="m") == chat.request(json.dumps({"model": "m", **members}).encode())


def test_an_escaped_member_for_keys_is_not_kept_either() -> None:
    """A member's name is compared as parsers read it."""
    assert Request() == chat.request(b'{"customer\\u005fcredentials": {"a": 1}}')


def test_a_tool_that_carries_a_key_is_named_only() -> None:
    """Of an MCP server's description with its token only the type is kept; functions are kept whole."""
    function = '{"type": "function", "function": {"name": "rotate_api_key"}}'
    server = '{"type": "mcp", "server_url": "https://a.example", "authorization": "Bearer k"}'
    search = '{"type": "web_search"}'

    request = chat.request(f'{{"tools": [{function}, {server}, {search}]}}'.encode())

    assert {"tools": f'[{function},{{"type":"mcp"}},{search}]'.encode()} == request.parameters


def test_documented_parameters_may_mention_tokens() -> None:
    """Limits on tokens and schemas with a member named key are parameters like any other."""
    members = {
        "max_tokens": 5,
        "reasoning": {"max_tokens": 9},
        "response_format": {"type": "json_schema", "json_schema": {"properties": {"api_key": {}}}},
        "provider": {"order": ["a"]},
    }

    request = chat.request(json.dumps(members).encode())

    assert {name: json.dumps(value).encode() for name, value in members.items()} == request.parameters

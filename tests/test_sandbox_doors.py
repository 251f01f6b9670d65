"""The sandbox's doors: every place of a request that names a customer or brings a key is listed."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from kwai_middleware.sandbox.doors import Door, disagreeing, doors_of
from tests.support.sandbox_requests import APP_KEY, ask_gateway, encoded

pytest_plugins = ["kwai_middleware.testing"]

KEYS = {"api_key": "key-of-acme"}
NAMED = {
    "customer_identifier": "acme",
    "customer_name": "Acme",
    "customer_email": "it@acme.test",
    "group_identifier": "group",
    "thread_identifier": "thread",
}
PARAMS = {"customer_identifier": "acme", "name": "Acme", "email": "it@acme.test", "group_identifier": "group"}


def found(body: object, *headers: tuple[str, str], **options: Any) -> list[tuple[str, str | None, str | None]]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    doors = doors_of(raw, [(name.encode(), value.encode()) for name, value in headers], **options)
    return [(door.name, door.kind, door.value) for door in doors]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            NAMED,
            [
                ("customer_identifier", "identifier", "acme"),
                ("customer_name", "name", "Acme"),
                ("customer_email", "email", "it@acme.test"),
                ("group_identifier", "group", "group"),
                ("thread_identifier", "thread", "thread"),
            ],
            id="top level",
        ),
        pytest.param(
            {"customer_params": {**PARAMS, "rate_limit": 1}},
            [
                ("customer_params.customer_identifier", "identifier", "acme"),
                ("customer_params.name", "name", "Acme"),
                ("customer_params.email", "email", "it@acme.test"),
                ("customer_params.group_identifier", "group", "group"),
            ],
            id="customer_params",
        ),
        pytest.param({"customer_identifier": 7}, [("customer_identifier", "identifier", "7")], id="a number"),
        pytest.param({"customer_identifier": None}, [("customer_identifier", None, None)], id="null"),
        pytest.param({"customer_params": "acme"}, [("customer_params", None, None)], id="no object"),
        pytest.param(
            {"customer_credentials": {"openrouter": KEYS}},
            [("customer_credentials.openrouter.api_key", "key", "key-of-acme")],
            id="customer_credentials",
        ),
        pytest.param(
            {"customer_credentials": {"openrouter": "key-of-acme"}},
            [("customer_credentials.openrouter", "key", "key-of-acme")],
            id="customer_credentials as the reference says",
        ),
        pytest.param(
            {"customer_credentials": [{"credentials": {"openai": KEYS}, "weight": 1, "available_models": ["gpt"]}]},
            [("customer_credentials[0].credentials.openai.api_key", "key", "key-of-acme")],
            id="customer_credentials as the guide lists them",
        ),
        pytest.param(
            {"customer_credentials": {"openai": [{"weight": 1, "credentials": KEYS}]}},
            [("customer_credentials.openai[0].credentials.api_key", "key", "key-of-acme")],
            id="customer_credentials as the type lists them",
        ),
        pytest.param(
            {
                "customer_credentials": {
                    "bedrock": {"aws_access_key_id": "AKIA", "aws_secret_access_key": "hush", "aws_region_name": "eu"},
                    "azure_openai": {"api_key": "blue", "api_base": "https://a.test", "api_version": "1"},
                }
            },
            [
                ("customer_credentials.bedrock.aws_secret_access_key", "key", "hush"),
                ("customer_credentials.azure_openai.api_key", "key", "blue"),
            ],
            id="other providers",
        ),
        pytest.param({"customer_credentials": {}}, [("customer_credentials", None, None)], id="no credentials"),
        pytest.param({"customer_credentials": {"a": ""}}, [("customer_credentials", None, None)], id="an empty key"),
        pytest.param(
            {"credential_override": {"gpt": KEYS, "other": "plain"}},
            [("credential_override.gpt.api_key", "key", "key-of-acme"), ("credential_override.other", "key", "plain")],
            id="credential_override",
        ),
        pytest.param(
            {"customer_api_keys": {"gpt": "key-of-acme"}},
            [("customer_api_keys.gpt", "key", "key-of-acme")],
            id="customer_api_keys",
        ),
        pytest.param(
            {"load_balance_models": [{"model": "gpt", "weight": 1, "credentials": KEYS}]},
            [("load_balance_models[0].credentials.api_key", "key", "key-of-acme")],
            id="load_balance_models",
        ),
        pytest.param(
            {"loadbalance_models": [{"model": "gpt", "credentials": {"api_base": "https://a.test", **KEYS}}]},
            [("loadbalance_models[0].credentials.api_key", "key", "key-of-acme")],
            id="its old spelling",
        ),
        pytest.param(
            {"load_balance_group": {"group_id": "g", "models": [{"model": "gpt", "credentials": KEYS}]}},
            [("load_balance_group.models[0].credentials.api_key", "key", "key-of-acme")],
            id="load_balance_group",
        ),
        pytest.param(
            {"load_balance_group": {"group_id": "g"}}, [("load_balance_group", None, None)], id="a stored one"
        ),
        pytest.param(
            {"respan_params": {"customer_identifier": "acme"}, "keywordsai_params": '{"customer_name": "Acme"}'},
            [
                ("respan_params.customer_identifier", "identifier", "acme"),
                ("keywordsai_params.customer_name", "name", "Acme"),
            ],
            id="nested, as an object and as text",
        ),
        pytest.param({"respan_params": "no object"}, [("respan_params", None, None)], id="nested, no object"),
        pytest.param({"respan_params": {"cache_enabled": True}}, [], id="nested, nothing of anybody"),
        pytest.param(
            {"extra_body": {"customer_identifier": "acme"}},
            [("extra_body.customer_identifier", "identifier", "acme")],
            id="extra_body",
        ),
        pytest.param(
            {
                "extra_headers": {
                    "X-API-Key": "key-of-acme",
                    "Authorization": "Bearer key-of-beta",
                    "X-Title": "no key",
                    "X-Token": 1,
                    "X-Data-Respan-Params": encoded({"customer_identifier": "acme"}),
                }
            },
            [
                ("extra_headers.X-API-Key", "key", "key-of-acme"),
                ("extra_headers.Authorization", "key", "key-of-beta"),
                ("extra_headers.X-Data-Respan-Params.customer_identifier", "identifier", "acme"),
            ],
            id="extra_headers",
        ),
        pytest.param({"extra_headers": "X-API-Key: a"}, [], id="extra_headers, no object"),
        pytest.param(
            b'{"customer_identifier": "a", "customer\\u005fidentifier": "b", "customer_params":'
            b' {"customer_identifier": "c", "customer_identifier": "d"}, "respan_params": {}, "limit": Infinity}',
            [
                ("customer_identifier", "identifier", "a"),
                ("customer_identifier", "identifier", "b"),
                ("customer_params.customer_identifier", "identifier", "c"),
                ("customer_params.customer_identifier", "identifier", "d"),
            ],
            id="doubled and escaped",
        ),
        pytest.param(
            b'{"customer_identifier": "\\ud800"}', [("customer_identifier", "identifier", "?")], id="half a pair"
        ),
        pytest.param(
            {"metadata": {"respan_params": {"customer_identifier": "acme"}}}, [], id="metadata, where it is the user's"
        ),
        pytest.param(b"[]", [], id="an array"),
        pytest.param(b"{", [], id="no JSON"),
        pytest.param(b"\xff", [], id="no UTF-8"),
        pytest.param(b"[" * 100_000, [], id="nested too deeply"),
    ],
)
def test_every_door_of_a_body_is_found(body: object, expected: list[tuple[str, str | None, str | None]]) -> None:
    """Each place is named, with what it brings, also when it brings nothing and when a member is there twice."""
    assert expected == found(body)


def test_credentials_nested_beyond_any_form_are_not_searched() -> None:
    """A body cannot make the sandbox descend without end."""
    deep: object = KEYS
    for _ in range(30):
        deep = {"deeper": deep}
    assert [("customer_credentials", None, None)] == found({"customer_credentials": deep})


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        pytest.param(
            "x-data-respan-params",
            encoded({"customer_credentials": {"openrouter": KEYS}, "customer_identifier": "acme"}),
            [
                ("header X-Data-Respan-Params: customer_credentials.openrouter.api_key", "key", "key-of-acme"),
                ("header X-Data-Respan-Params: customer_identifier", "identifier", "acme"),
            ],
            id="base64",
        ),
        pytest.param(
            "x-data-keywordsai-params",
            '{"customer_identifier": "acme"}',
            [("header X-Data-Keywordsai-Params: customer_identifier", "identifier", "acme")],
            id="the old name, plain JSON",
        ),
        pytest.param("x-data-respan-params", "%", [("header X-Data-Respan-Params", None, None)], id="neither"),
        pytest.param(
            "x-data-respan-params", encoded([1]), [("header X-Data-Respan-Params", None, None)], id="an array"
        ),
        pytest.param("x-api-key", "key-of-acme", [("header x-api-key", "key", "key-of-acme")], id="a key"),
        pytest.param("authorization", "Bearer key-of-acme", [], id="a header that pays nothing here"),
    ],
)
def test_every_door_in_a_header_is_found(header: str, value: str, expected: list[tuple[str, str, str]]) -> None:
    """Parameters in a header are listed under its name, in base64 or plain; keys where they may pay."""
    assert expected == found(b"", (header, value), key_headers=("x-api-key",))
    assert expected * 2 == found(b"", (header, value), (header, value), key_headers=("x-api-key",))


def test_metadata_is_a_door_in_anthropics_format_only() -> None:
    """There `metadata` holds the gateway's parameters and headers for the provider."""
    body = {
        "metadata": {
            "user_id": "u",
            "respan_params": {"customer_identifier": "acme"},
            "extra_headers": {"x-api-key": "key-of-acme"},
        }
    }
    assert [
        ("metadata.respan_params.customer_identifier", "identifier", "acme"),
        ("metadata.extra_headers.x-api-key", "key", "key-of-acme"),
    ] == found(body, in_metadata=True)
    assert [] == found({"metadata": "text"}, in_metadata=True)


def test_doors_that_disagree_are_named_by_kind() -> None:
    """Different values of one kind are a disagreement; the same value in many places is none."""
    doors = [Door("a", "identifier", "acme"), Door("b", "identifier", "acme"), Door("c"), Door("d", "key", "1")]
    assert [] == disagreeing(doors)
    assert ["key"] == disagreeing([*doors, Door("e", "key", "2")])


def test_the_journal_shows_the_doors_and_no_key(kwai_sandbox: Sandbox) -> None:
    """A request that contradicts itself is shown with all it says, keys as fingerprints, in its body too."""
    keys = [f"no-known-shape-{number}" for number in range(8)]
    within = {"customer_credentials": {"openrouter": keys[4]}, "note": f"it is {keys[0]}"}
    ask_gateway(
        kwai_sandbox,
        {
            "customer_credentials": {"openrouter": {"api_key": keys[0]}},
            "credential_override": {"openai/gpt": {"api_key": keys[1]}},
            "customer_api_keys": {"openai/gpt": keys[2]},
            "load_balance_models": [{"model": "gpt", "credentials": {"openai": {"api_key": keys[3]}}}],
            "respan_params": json.dumps(within).replace("-", "\\u002d"),
            "extra_headers": {"Authorization": f"Bearer {keys[5]}"},
            "customer_identifier": keys[6],
            "customer_params": {"customer_identifier": "acme"},
        },
        {"x-data-respan-params": encoded({"customer_credentials": {"groq": {"api_key": keys[7]}}})},
    )
    [call] = kwai_sandbox.calls(wait=1)
    shown = json.dumps(call)
    assert {*keys[:6], keys[7]} == {key for key in keys if key not in shown}
    read = json.loads(call["body"]["respan_params"])
    assert f"[key {Secret(keys[4]).fingerprint}]" == read["customer_credentials"]["openrouter"]
    marks = {Secret(key).fingerprint for key in [*keys[:6], keys[7]]}
    assert marks == {door["value"] for door in call["doors"] if door["kind"] == "key"}
    assert ["key", "identifier"] == sorted(call["doors_disagree"], reverse=True)
    assert {"door": "customer_params.customer_identifier", "kind": "identifier", "value": "acme"} in call["doors"]


@pytest.mark.parametrize(
    "body",
    [
        {"customer_credentials": {"openrouter": {"api_key": "another-unknown-form"}}},
        {"credential_override": {"another/model": {"api_key": "another-unknown-form"}}},
        {"respan_params": {"load_balance_models": [{"credentials": {"api_key": "another-unknown-form"}}]}},
        {"keywordsai_params": '{"customer_api_keys": {"another": "another-unknown-form"}}'},
        {"extra_headers": {"x-api-key": "another-unknown-form"}},
        b'{"customer_api_keys": {"a": "another-unknown-form", "a": "another"}}',
    ],
)
def test_a_key_from_any_door_is_found_in_a_record(kwai_sandbox: Sandbox, body: object) -> None:
    """Once a key came through a door, paid or not, it is recognised in the logs and in other calls."""
    ask_gateway(kwai_sandbox, body)
    record = {"model": "any", "input": "my key is another-unknown-form"}
    httpx.post(
        f"{kwai_sandbox.gateway_url}request-logs/create/",
        json=record,
        headers={"authorization": f"Bearer {APP_KEY}"},
        trust_env=False,
    )
    [log] = kwai_sandbox.logs(wait=1)
    assert Secret("another-unknown-form").fingerprint in log["keys_seen"]
    assert "another-unknown-form" not in json.dumps([log, kwai_sandbox.calls()])


def test_a_key_as_the_customers_name_is_masked(kwai_sandbox: Sandbox) -> None:
    """A key that was put where an identity belongs is not shown there either."""
    key = "sk-or-v1-0123456789abcdef"
    ask_gateway(kwai_sandbox, {"customer_identifier": key, "model": key})
    [call] = kwai_sandbox.calls(wait=1)
    assert key not in json.dumps(call)
    assert f"[key {Secret(key).fingerprint}]" == call["customer"]


def test_a_body_nested_deeply_can_still_be_looked_at(kwai_sandbox: Sandbox) -> None:
    """What is nested deeper than can be shown is left out, and the journal goes on to answer."""
    deep = b'{"a":' * 700 + b"1" + b"}" * 700
    ask_gateway(kwai_sandbox, b'{"deep": ' + deep + b"}")
    ask_gateway(kwai_sandbox, {"customer_identifier": "acme"})
    calls = kwai_sandbox.calls(wait=2)
    assert ["(nested too deeply to show)", "acme"] == [calls[0]["body"], calls[1]["customer"]]

"""Which of a request's doors decides at the sandbox's gateway: both of the vendor's orders, and who pays."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from kwai_middleware.sandbox.doors import doors_of
from kwai_middleware.sandbox.json_types import json_or_none, object_or_empty
from kwai_middleware.sandbox.parameters import customer_of, parameters, pass_through_parameters
from kwai_middleware.sandbox.payers import paying_credential
from tests.support.sandbox_requests import APP_KEY, ask_gateway, encoded

pytest_plugins = ["kwai_middleware.testing"]

KEYS = {"api_key": "key-of-acme"}


@pytest.mark.parametrize(
    ("precedence", "bodies"),
    [
        ("2026-10", ["respan", "respan", "header", "keywordsai"]),
        ("2026-06", ["top", "respan", "header", "keywordsai"]),
    ],
)
def test_the_order_of_the_doors_can_be_switched(kwai_sandbox: Sandbox, precedence: str, bodies: list[str]) -> None:
    """Newest order: `respan_params`, header, top level; the one before: top level, `respan_params`, header."""
    kwai_sandbox.precedence(precedence)
    respan, header = {"respan_params": {"customer_identifier": "respan"}}, {"customer_identifier": "header"}
    top, old = {"customer_identifier": "top"}, {"keywordsai_params": {"customer_identifier": "keywordsai"}}
    ask_gateway(kwai_sandbox, {**top, **respan, **old}, {"x-data-respan-params": encoded(header)})
    ask_gateway(kwai_sandbox, {**respan, **old}, {"x-data-respan-params": encoded(header)})
    ask_gateway(kwai_sandbox, {}, {"x-data-respan-params": encoded(header), "x-data-keywordsai-params": encoded(top)})
    ask_gateway(kwai_sandbox, old, {"x-data-respan-params": encoded(header)})
    assert bodies == [call["customer"] for call in kwai_sandbox.calls(wait=4)]


def test_the_order_holds_for_the_payer_too(kwai_sandbox: Sandbox) -> None:
    """A key at the top level and another in `respan_params`: the order says which pays; reset restores the newest."""
    body = {
        "customer_credentials": {"openrouter": {"api_key": "key-at-the-top"}},
        "respan_params": {"customer_credentials": {"openrouter": {"api_key": "key-within"}}},
    }
    payers = []
    for order in ("2026-06", "2026-10"):
        kwai_sandbox.precedence(order)
        ask_gateway(kwai_sandbox, body)
        payers += [call["paid_by"]["fingerprint"] for call in kwai_sandbox.calls(wait=1)]
        kwai_sandbox.reset()
    kwai_sandbox.precedence("2026-06")
    kwai_sandbox.reset()
    ask_gateway(kwai_sandbox, body)
    payers += [call["paid_by"]["fingerprint"] for call in kwai_sandbox.calls(wait=1)]
    assert [Secret(key).fingerprint for key in ("key-at-the-top", "key-within", "key-within")] == payers


def test_an_unknown_order_is_refused(kwai_sandbox: Sandbox) -> None:
    """The handle raises with the orders there are, and what holds stays as it was."""
    kwai_sandbox.precedence("2026-06")
    with pytest.raises(ValueError, match="precedence: 2026-10 or 2026-06"):
        kwai_sandbox.precedence("2027-01")
    url = f"{kwai_sandbox.url}/sandbox/precedence"
    assert httpx.put(url, content=b"nonsense", trust_env=False).status_code == 400
    assert {"precedence": "2026-06"} == httpx.get(url, trust_env=False).json()
    kwai_sandbox.reset()
    assert {"precedence": "2026-10"} == httpx.get(url, trust_env=False).json()


@pytest.mark.parametrize(
    ("body", "source", "key"),
    [
        pytest.param({}, None, None, id="nobody"),
        pytest.param(
            {"customer_credentials": {"openrouter": KEYS}}, "customer_credentials", "key-of-acme", id="object"
        ),
        pytest.param({"customer_credentials": {"groq": "plain"}}, "customer_credentials", "plain", id="text"),
        pytest.param({"customer_credentials": {"api_base": "https://a.test"}}, None, None, id="no key"),
        pytest.param(
            {"customer_credentials": [1, {"credentials": {"openai": {"api_key": "a"}}}, {"credentials": 1}]},
            "customer_credentials",
            "a",
            id="the guide's list",
        ),
        pytest.param(
            {"customer_credentials": {"openai": [{"credentials": {"api_key": "a"}}, {"credentials": KEYS}]}},
            "customer_credentials",
            "a",
            id="the type's list",
        ),
        pytest.param(
            {"customer_credentials": {"openai": {"api_key": "a"}, "openrouter": {"api_key": "b"}}},
            "customer_credentials",
            "b",
            id="OpenRouter's first",
        ),
        pytest.param({"customer_api_keys": {"openai/gpt": "a"}}, "customer_api_keys", "a", id="customer_api_keys"),
        pytest.param({"customer_api_keys": {"another": "a"}}, None, None, id="another model's"),
        pytest.param({"credential_override": {"": {"api_key": "a"}}}, "credential_override", "a", id="any model's"),
        pytest.param({"credential_override": {"openrouter": "a"}}, "credential_override", "a", id="by provider"),
        pytest.param({"credential_override": {"another": "a"}}, None, None, id="another's override"),
        pytest.param(
            {"load_balance_models": [{"model": "gpt"}, {"model": "gpt", "credentials": {"openai": {"api_key": "a"}}}]},
            "load_balance_models",
            "a",
            id="load_balance_models",
        ),
        pytest.param(
            {"loadbalance_models": [{"credentials": {"api_key": "a", "api_base": "b"}}]},
            "loadbalance_models",
            "a",
            id="loadbalance_models",
        ),
        pytest.param(
            {"load_balance_group": {"models": [{"credentials": {"aws_secret_access_key": "a"}}]}},
            "load_balance_group",
            "a",
            id="load_balance_group",
        ),
        pytest.param({"load_balance_group": {"group_id": "g", "models": "all"}}, None, None, id="a stored group"),
    ],
)
def test_every_credential_can_pay(body: dict[str, object], source: str | None, key: str | None) -> None:
    """Each parameter that brings a key, in each of its documented forms, pays for the call."""
    assert (None if source is None else (source, key)) == paying_credential(body, "openai/gpt", None)


def test_the_nearer_credential_wins() -> None:
    """What is meant for the model goes before a choice of models, and that before the customer's credentials."""
    names = ("credential_override", "load_balance_models", "customer_api_keys", "customer_credentials")
    body: dict[str, object] = {
        "customer_credentials": {"openrouter": {"api_key": "customer_credentials"}},
        "customer_api_keys": {"gpt": "customer_api_keys"},
        "load_balance_models": [{"credentials": {"api_key": "load_balance_models"}}],
        "credential_override": {"gpt": {"api_key": "credential_override"}},
    }
    for name in names:
        assert (name, name) == paying_credential(body, "openrouter/gpt", None)
        del body[name]
    assert paying_credential(body, None, None) is None


def test_a_pinned_provider_pays_or_the_app_does(kwai_sandbox: Sandbox) -> None:
    """`X-Respan-Route-Provider` picks among the credentials; the parameter of that meaning overrides the header."""
    both = {"customer_credentials": {"openrouter": "key-openrouter", "groq": "key-of-groq"}}
    ask_gateway(kwai_sandbox, both, {"x-respan-route-provider": "groq"})
    ask_gateway(kwai_sandbox, both, {"x-respan-route-provider": "openai"})
    ask_gateway(
        kwai_sandbox,
        {**both, "route_provider_override": "openrouter", "disable_fallback": True},
        {"x-respan-route-provider": "groq"},
    )
    calls = kwai_sandbox.calls(wait=3)
    assert [Secret(key).fingerprint for key in ("key-of-groq", APP_KEY, "key-openrouter")] == [
        call["paid_by"]["fingerprint"] for call in calls
    ]
    assert [("groq", None), ("openai", None), ("openrouter", True)] == [
        (call["route_provider"], call["disable_fallback"]) for call in calls
    ]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nany\r\n--x--\r\n',
        ),
        ("text/plain", b"Hello"),
        ("application/json", b""),
        ("application/json", b'{"model": "any", "messages": [{}], "temperature": Infinity}'),
        ("application/json", b"\xff\xfe"),
        ("application/json", b'{"a":' * 3000),
    ],
)
def test_the_header_counts_beside_a_body_that_is_no_json(kwai_sandbox: Sandbox, content_type: str, body: bytes) -> None:
    """The answer is 400, and still the journal says for whom the request was and who would have paid."""
    header = encoded({"customer_params": {"customer_identifier": "acme"}, "customer_credentials": {"openrouter": KEYS}})
    answer = ask_gateway(kwai_sandbox, body, {"content-type": content_type, "x-data-respan-params": header})
    [call] = kwai_sandbox.calls(wait=1, customer="acme")
    assert (400, 400) == (answer.status_code, call["status"])
    assert {"source": "customer_credentials", "fingerprint": Secret("key-of-acme").fingerprint} == call["paid_by"]
    assert ["identifier", "key"] == [door["kind"] for door in call["doors"]]
    assert {"customer_identifier": "acme"} == call["customer_params"]


names = st.sampled_from([
    "customer_credentials", "credential_override", "customer_api_keys", "load_balance_models", "loadbalance_models",
    "load_balance_group", "models", "credentials", "openrouter", "openai/gpt", "", "api_key", "api_base", "weight",
    "customer_params", "customer_identifier", "name", "respan_params", "keywordsai_params", "metadata",
])  # fmt: skip
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(["{}", '{"customer_identifier": "text"}']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(names, values, max_size=5), st.none() | st.dictionaries(names, values, max_size=3))
def test_whoever_pays_and_whoever_it_is_for_is_among_the_doors(
    body: dict[str, Any], header: dict[str, Any] | None
) -> None:
    """In either order, in either format: the payer's key and the customer's identifier came through a listed door."""
    raw, value = json.dumps(body).encode(), None if header is None else encoded(header)
    headers = [] if value is None else [(b"x-data-respan-params", value.encode())]
    doors = doors_of(raw, headers, in_metadata=True)
    keys = {door.value for door in doors if door.kind == "key"}
    people = {door.value for door in doors if door.kind == "identifier"}
    read = object_or_empty(json_or_none(raw))
    for merge in (parameters, pass_through_parameters):
        for order in ("2026-10", "2026-06"):
            merged = merge(read, value, order)
            credential = paying_credential(merged, "openai/gpt", None)
            assert credential is None or credential[1] in keys
            assert customer_of(merged) in people | {None}

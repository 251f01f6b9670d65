"""The sandbox in Anthropic's format: which key it takes, whom it attributes a call to, what it sends on."""

from __future__ import annotations

import json

import pytest

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_requests import (
    APP_KEY,
    GATEWAY_MESSAGES,
    OPENROUTER_MESSAGES,
    USER_KEY,
    ask_messages,
    encoded,
)

pytest_plugins = ["kwai_middleware.testing"]


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": ""}, {"x-api-key": "app-key-dead"}, {"authorization": "Basic a"}]
)
def test_the_gateway_insists_on_the_apps_key(kwai_sandbox: Sandbox, headers: dict[str, str]) -> None:
    """Without a good key in `x-api-key` or as Bearer the gateway refuses in its own shape and logs nothing."""
    answer = ask_messages(kwai_sandbox, GATEWAY_MESSAGES, headers=headers)
    assert (401, True) == (answer.status_code, answer.json()["detail"].startswith("Your API key is invalid"))
    assert [None] == [call["logged_by"] for call in kwai_sandbox.calls(wait=1, status=401)]
    assert "x-respan-log-id" not in answer.headers


@pytest.mark.parametrize(("key", "status"), [("", 401), (f"{USER_KEY}-dead", 401), (f"{USER_KEY}-broke", 402)])
def test_openrouter_refuses_in_anthropics_shape(kwai_sandbox: Sandbox, key: str, status: int) -> None:
    """A missing or bad key is an error of Anthropic's shape, whichever of the two headers it came in."""
    for headers in ({"authorization": f"Bearer {key}".rstrip()}, {"x-api-key": key}):
        answer = ask_messages(kwai_sandbox, OPENROUTER_MESSAGES, headers=headers)
        assert (status, "error") == (answer.status_code, answer.json()["type"])


def test_two_keys_for_openrouter_are_two_doors(kwai_sandbox: Sandbox) -> None:
    """A Bearer key pays, and one in `x-api-key` beside it is shown as a disagreement."""
    ask_messages(
        kwai_sandbox, OPENROUTER_MESSAGES, headers={"authorization": f"Bearer {USER_KEY}", "x-api-key": APP_KEY}
    )
    [call] = kwai_sandbox.calls(wait=1)
    assert (Secret(USER_KEY).fingerprint, ["key"]) == (call["paid_by"]["fingerprint"], call["doors_disagree"])
    shown = json.dumps(call)
    assert (False, False) == (USER_KEY in shown, APP_KEY in shown)


@pytest.mark.parametrize(
    ("body", "header", "new", "old"),
    [
        pytest.param({"metadata": {"respan_params": {"customer_identifier": "a"}}}, None, "a", "a", id="metadata"),
        pytest.param({"metadata": {"keywordsai_params": {"customer_identifier": "a"}}}, None, "a", "a", id="its alias"),
        pytest.param({"respan_params": {"customer_identifier": "a"}}, None, "a", "a", id="top-level object"),
        pytest.param({}, {"customer_identifier": "a"}, "a", "a", id="header"),
        pytest.param({"customer_identifier": "a"}, None, None, None, id="top level: Anthropic's alone"),
        pytest.param(
            {
                "metadata": {"respan_params": {"customer_params": {"customer_identifier": "metadata"}}},
                "respan_params": {"customer_params": {"customer_identifier": "top"}},
            },
            {"customer_params": {"customer_identifier": "header"}},
            "metadata",
            "top",
            id="all: nobody documents which wins",
        ),
        pytest.param(
            {"metadata": "text", "respan_params": 1}, {"customer_identifier": "a"}, None, None, id="no object"
        ),
    ],
)
def test_the_gateway_attributes_messages(
    kwai_sandbox: Sandbox, body: dict[str, object], header: object, new: str | None, old: str | None
) -> None:
    """The customer is found in each place that a document names, under both orders."""
    headers = {"x-api-key": APP_KEY} | ({} if header is None else {"x-data-respan-params": encoded(header)})
    for order in ("2026-10", "2026-06"):
        kwai_sandbox.precedence(order)
        ask_messages(kwai_sandbox, GATEWAY_MESSAGES, body, headers)
    assert [new, old] == [call["customer"] for call in kwai_sandbox.calls(wait=2)]


def test_a_customers_credentials_do_not_pay_for_messages(kwai_sandbox: Sandbox) -> None:
    """The pass-through documents none: the app pays, the journal shows the door, and what Anthropic would see."""
    credentials = {"customer_credentials": {"anthropic": {"api_key": "key-of-acme"}}, "disable_fallback": True}
    ask_messages(
        kwai_sandbox,
        GATEWAY_MESSAGES,
        {"metadata": {"respan_params": credentials, "user_id": "u"}, "customer_params": {}, "keywordsai_params": {}},
    )
    [call] = kwai_sandbox.calls(wait=1)
    assert {"source": "authorization", "fingerprint": Secret(APP_KEY).fingerprint} == call["paid_by"]
    assert (["customer_params"], True) == (call["forwarded"], call["disable_fallback"])
    assert {
        "door": "metadata.respan_params.customer_credentials.anthropic.api_key",
        "kind": "key",
        "value": Secret("key-of-acme").fingerprint,
    } in call["doors"]


def test_openrouter_knows_the_end_user_and_forwards_the_rest(kwai_sandbox: Sandbox) -> None:
    """`user`, else `metadata.user_id`, is the customer; the gateway's members go on to the provider."""
    ask_messages(kwai_sandbox, OPENROUTER_MESSAGES, {"user": "a", "metadata": {"user_id": "b"}, "respan_params": {}})
    ask_messages(kwai_sandbox, OPENROUTER_MESSAGES, {"metadata": {"user_id": "b"}})
    assert [("a", ["respan_params"]), ("b", [])] == [
        (call["customer"], call["forwarded"]) for call in kwai_sandbox.calls(wait=2)
    ]

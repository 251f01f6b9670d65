"""A body that the vendor may read in another way than we do brings neither a customer nor a payer of its own."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kwai_middleware._caller import Caller
from kwai_middleware.errors import CannotAttribute
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of
from tests.support.flavours import Flavour
from tests.support.wired import RELAY, wired

FORM = "application/x-www-form-urlencoded"
ANYONE = pytest.mark.parametrize("who", [caller(), caller(credentials=()), None], ids=["a key", "no key", "nobody"])


@ANYONE
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"a":"&customer_identifier=forged&"}', FORM),
        (b'{"a":"&customer%5Fidentifier=forged&"}', f"{FORM.upper()}; charset=utf-8"),
        (
            b'{"a":"\r\n--x\r\nContent-Disposition: form-data; name=customer_identifier\r\n\r\nforged\r\n--x--\r\n"}',
            "multipart/form-data; boundary=x",
        ),
    ],
    ids=["a form", "a form, escaped", "multipart"],
)
def test_an_object_that_is_a_form_as_well_is_refused(
    flavour: Flavour, who: Caller | None, body: bytes, content_type: str
) -> None:
    """The vendor reads a body by its declared type, and in a form the members of an object are texts."""
    for url in (GATEWAY, RELAY):
        with pytest.raises(CannotAttribute, match="names a parameter"):
            wired(flavour, who, body, url, {"content-type": content_type})
    assert body == wired(flavour, who, body, OPENROUTER, {"content-type": content_type}).content


def test_what_is_declared_as_a_form_has_the_header_beside_it(flavour: Flavour) -> None:
    """A member of an object would not be read in it; the header is, whatever the body."""
    body = b'{"model":"m"}'
    sent = wired(flavour, caller(), body, headers={"content-type": FORM})
    assert body == sent.content
    carried = json.loads(base64.b64decode(sent.headers["x-data-respan-params"]))
    assert {"openrouter": {"api_key": key_of("acme")}} == carried["customer_credentials"]
    assert "acme" == carried["customer_params"]["customer_identifier"]


@ANYONE
@pytest.mark.parametrize(
    "parameters",
    [
        "charset=utf-8; charset=utf-7",
        "charset=utf-7; charset=utf-8",
        "charset = utf-7",
        "charset*=utf-7''x",
        "charset*0=utf; charset*1=-7",
        'charset="utf-7',
        "charset=utf-8, application/json; charset=utf-7",
        "charset=",
        "charset=utf-80",
        "charset='utf-7'",
        'charset="utf\\-7"',
    ],
)
def test_a_charset_that_two_may_read_differently_is_refused(
    flavour: Flavour, who: Caller | None, parameters: str
) -> None:
    """Of two charsets some take the first and some the last, and not all undo the same escapes."""
    with pytest.raises(CannotAttribute, match="charset"):
        wired(flavour, who, b'{"model":"m"}', headers={"content-type": f"application/json; {parameters}"})


@ANYONE
@pytest.mark.parametrize(
    "body",
    [
        b'{"cust\xffomer_identifier":"forged"}',
        b'{"cust\xc2\xadomer_identifier":"forged",}',
        b'{"\\\\\\u0063ustomer_identifier":"forged",}',
        b"\\" * 1_000_000 + b" %63ustomer_identifier",
        '{"customer_identifier":"forged",'.encode("utf-32-be"),
    ],
    ids=["skipped", "skipped, UTF-8", "escaped", "a million backslashes", "UTF-32"],
)
def test_a_name_is_found_behind_whatever_a_decoder_may_skip(flavour: Flavour, who: Caller | None, body: bytes) -> None:
    """Bytes that are no text, and escapes of escapes, hide no name; looking for it takes no time to speak of."""
    with pytest.raises(CannotAttribute, match="names a parameter"):
        wired(flavour, who, body)


@ANYONE
@pytest.mark.parametrize("depth", [5, 500])
def test_the_deepest_object_brings_nothing(flavour: Flavour, who: Caller | None, depth: int) -> None:
    """Objects in objects are looked into a few times, and what is deeper goes as a whole."""
    body = b'{"respan_params":' * depth + b'{"customer_name":"forged"}' + b"}" * depth
    assert b"forged" not in wired(flavour, who, b'{"kept":1,' + body[1:]).content
    with pytest.raises(CannotAttribute) as caught:
        wired(flavour, who, body, on_conflict="error")
    assert 5 == str(caught.value).count("respan_params")


# --- byok='only'

_OTHER_PAYERS: list[Any] = [
    b'{"customer_credentials":{"openrouter":{"api_key":"forged"}},"fallback_models":["x"]}',
    b'{"credential_override":{"m":{"api_key":"forged"}}}',
    b'{"customer_credentials":{"openrouter":{"api_key":"forged"}},}',
    b"fallback_models=x",
    b'{"models":["x"],"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"route%5Fprovider_override":"x",}',
]


@pytest.mark.parametrize("on_conflict", ["context", "body", "error"])
@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "in pieces"])
@pytest.mark.parametrize("body", _OTHER_PAYERS, ids=range(len(_OTHER_PAYERS)))
def test_only_lets_no_hidden_payer_in(flavour: Flavour, body: bytes, in_pieces: bool, on_conflict: str) -> None:
    """Whoever wins otherwise: a body that may bring another payer goes nowhere, also when it comes in pieces."""
    content = flavour.body([body[:9], body[9:]]) if in_pieces else body
    with pytest.raises(CannotAttribute):
        wired(flavour, caller(), request={"content": content}, byok="only", on_conflict=on_conflict)


def test_only_takes_the_others_key_out_of_a_stream(flavour: Flavour) -> None:
    """Where the request may win otherwise, it is read all the same when only the caller may pay."""
    forged = b'{"model":"m","customer_credentials":{"openrouter":{"api_key":"forged"}}}'
    request = {"content": flavour.body([forged[:30], forged[30:]])}
    sent = wired(flavour, caller(), request=request, byok="only", on_conflict="body")
    assert {"openrouter": {"api_key": key_of("acme")}} == json.loads(sent.content)["customer_credentials"]
    assert b"forged" not in sent.content


def test_a_choice_of_models_with_a_number_too_large_is_taken_out(flavour: Flavour) -> None:
    """It is written anew without its keys, and there is no JSON for infinity."""
    body = b'{"model":"m","load_balance_group":{"weight":1e999,"credentials":{"api_key":"forged"}}}'
    sent = wired(flavour, caller(), body)
    assert "load_balance_group" not in json.loads(sent.content, parse_constant=pytest.fail)


@ANYONE
@pytest.mark.parametrize("name", ["load_balance_group", "load_balance_models", "loadbalance_models", "extra_headers"])
def test_what_should_be_no_text_is_taken_out(flavour: Flavour, who: Caller | None, name: str) -> None:
    """JSON in a string is read by some, and a key in it would be seen by them alone."""
    text = json.dumps({"Authorization": "forged", "models": [{"credentials": {"api_key": "forged"}}]})
    sent = wired(flavour, who, {"model": "m", name: text, "metadata": {"kept": text}})
    assert name not in json.loads(sent.content)
    assert {"kept": text} == json.loads(sent.content)["metadata"]


@pytest.mark.parametrize(
    "prompt", ["what the model is asked", '{"override_params":{"customer_name":"n"}}', ["a"], None]
)
def test_a_prompt_that_is_no_object_stays(flavour: Flavour, prompt: Any) -> None:
    """It is what the model is asked, whatever it looks like."""
    assert prompt == json.loads(wired(flavour, caller(), {"prompt": prompt}).content)["prompt"]


def test_of_the_customers_params_the_limits_stay_and_nothing_else(flavour: Flavour) -> None:
    """What the vendor does not document today may say who the customer is tomorrow."""
    limits = {"rate_limit": 5, "budget_duration": "daily", "period_budget": 1.5, "total_budget": 9}
    others = {"customer_name": "forged", "customer_params": {"customer_identifier": "forged"}, "id": "forged"}
    sent = wired(flavour, caller(), {"customer_params": {**others, **limits, "customer_identifier": "forged"}})
    assert {"customer_identifier": "acme", **limits} == json.loads(sent.content)["customer_params"]


@pytest.mark.parametrize("name", ["respan_params", "keywordsai_params", "extra_body"])
@pytest.mark.parametrize("value", [None, 1, [], "no object", '"a text in a text"'])
def test_parameters_that_are_no_object_shut_nobody_out(flavour: Flavour, name: str, value: Any) -> None:
    """The vendor ignores them, and the parameters in the header with them."""
    for url, place in ((GATEWAY, ()), (RELAY, ("respan_params",))):
        sent = json.loads(wired(flavour, caller(), {"model": "m", name: value}, url).content)
        assert name not in sent or name in place
        for each in place:
            sent = sent[each]
        assert {"customer_identifier": "acme"} == sent["customer_params"]


def test_metadata_stays_a_map_of_texts(flavour: Flavour) -> None:
    """OpenAI's own takes nothing else: what is taken out of a text in it leaves a text."""
    body = {"metadata": {"respan_params": '{"note":1,"customer_name":"forged"}', "keywordsai_params": '{"note":2}'}}
    sent = json.loads(wired(flavour, None, body).content)
    assert '{"note":1}' == sent["metadata"]["respan_params"]
    assert isinstance(sent["metadata"].get("keywordsai_params", ""), str)


def test_of_a_choice_of_models_no_half_of_a_key_stays(flavour: Flavour) -> None:
    """Amazon's keys have two halves under names of their own."""
    model = {"model": "m", "weight": 1, "aws_access_key_id": "forged", "aws_secret_access_key": "forged"}
    sent = json.loads(wired(flavour, caller(), {"load_balance_models": [model]}).content)
    assert [{"model": "m", "weight": 1}] == sent["load_balance_models"]

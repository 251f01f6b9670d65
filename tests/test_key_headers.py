"""Headers that carry a key, or parameters, under another name or in another spelling."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kwai_middleware._caller import Caller
from kwai_middleware._context import bind_caller
from kwai_middleware.errors import CannotAttribute
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of, settings
from tests.support.flavours import Flavour
from tests.support.wired import RELAY, wired

FORGED = base64.b64encode(b'{"customer_identifier":"forged"}').decode()
MISSPELLED = [
    "X_Data_Respan_Params",
    "x-data_respan-params",
    "x_data-keywordsai_params",
    "x_openrouter_api_key",
    "x-respan_route_provider",
    "x_api_key",
]


@pytest.mark.parametrize("name", MISSPELLED)
@pytest.mark.parametrize("url", [GATEWAY, RELAY, OPENROUTER], ids=["gateway", "relay", "direct"])
@pytest.mark.parametrize("who", [caller(), caller(credentials=()), None], ids=["a key", "no key", "nobody"])
def test_an_underscore_hides_no_header(flavour: Flavour, who: Caller | None, url: str, name: str) -> None:
    """To a CGI or WSGI server both spellings are one name, so one of them could shut out ours."""
    sent = wired(flavour, who, url=url, headers={name: FORGED, "x_other": "stays"})
    assert name not in sent.headers
    assert FORGED not in str(sent.headers.raw)
    assert "stays" == sent.headers["x_other"]
    if url != OPENROUTER:
        with pytest.raises(CannotAttribute, match=name.lower()):
            wired(flavour, who, url=url, headers={name: FORGED}, on_conflict="error")
    assert FORGED == wired(flavour, who, url=url, headers={name: FORGED}, on_conflict="body").headers[name]


@pytest.mark.parametrize("app", [("api-key",), ("x-goog-api-key",), ("x-api-key", "api-key", "authorization")])
def test_the_apps_key_does_not_stay_in_another_header(flavour: Flavour, app: Any) -> None:
    """Azure and Google take the key elsewhere; with the app's own left there, the app would pay."""
    client_headers = dict.fromkeys(app, "house")
    sent = wired(flavour, caller(), url=OPENROUTER, headers=client_headers)
    assert "house" not in str(sent.headers.raw)
    for name in app:
        assert sent.headers[name].endswith(key_of("acme"))
    sent = wired(flavour, None, url=OPENROUTER, headers=client_headers)
    assert ["house"] * len(app) == [sent.headers[name] for name in app]
    sent = wired(flavour, caller(), url=GATEWAY, headers=client_headers)
    assert ["house"] * len(app) == [sent.headers[name] for name in app]


UNREADABLE = {
    "no base64": "!!!",
    "base64 for URLs": base64.urlsafe_b64encode(b'{"customer_identifier":"~~~???>>>"}').decode(),
    "without its padding": FORGED.rstrip("=") + "A",
    "of a text": base64.b64encode(json.dumps(json.dumps({"customer_identifier": "forged"})).encode()).decode(),
    "of a list": base64.b64encode(b'["customer_identifier"]').decode(),
    "plain, cut off": '{"customer_identifier":"forged"',
}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("name", ["x-data-respan-params", "X-Data-Keywordsai-Params"])
@pytest.mark.parametrize("who", [caller(), caller(credentials=()), None], ids=["a key", "no key", "nobody"])
def test_parameters_that_nobody_reads_go(flavour: Flavour, who: Caller | None, name: str, value: str) -> None:
    """A more lenient reader could find a customer in them, and the vendor then ignores what stands elsewhere."""
    for url in (GATEWAY, RELAY, OPENROUTER):
        assert name not in wired(flavour, who, url=url, headers={name: value}).headers
        with pytest.raises(CannotAttribute, match=name.lower()) as caught:
            wired(flavour, who, url=url, headers={name: value}, on_conflict="error")
        assert value not in str(caught.value)
        assert value == wired(flavour, who, url=url, headers={name: value}, on_conflict="body").headers[name]


def test_a_header_that_comes_twice_is_read_by_nobody(flavour: Flavour) -> None:
    """Some take the first of two and some the last."""
    headers: Any = [("x-data-respan-params", FORGED), ("X-Data-Respan-Params", base64.b64encode(b"{}").decode())]
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request)
        return flavour.library.Response(200)

    client = flavour.answering(handler, settings=settings(), deliver=lambda call: None)
    for who in (caller(), None):
        with bind_caller(who):
            flavour.post(client, GATEWAY, content=b"{}", headers=headers)
    flavour.close(client)
    assert ["x-data-respan-params" in request.headers for request in sent] == [False, False]


def test_plain_json_in_the_header_is_read_too(flavour: Flavour) -> None:
    """Some of the vendor's samples have it there: what is no door of it stays."""
    sent = wired(flavour, None, headers={"x-data-respan-params": '{"note":1,"customer_name":"forged"}'})
    assert {"note": 1} == json.loads(base64.b64decode(sent.headers["x-data-respan-params"]))


@pytest.mark.parametrize("url", [RELAY, OPENROUTER], ids=["relay", "direct"])
def test_only_pins_nothing_where_no_other_key_can_pay(flavour: Flavour, url: str) -> None:
    """There the caller's key is the only one: OpenRouter's own choice of models is the caller's to make."""
    sent = wired(flavour, caller(), {"model": "m", "models": ["a", "b"]}, url, byok="only")
    assert ["a", "b"] == json.loads(sent.content)["models"]
    assert b"disable_fallback" not in sent.content
    assert "x-respan-route-provider" not in sent.headers

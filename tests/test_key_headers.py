"""Headers that carry a key, or parameters, under another name or in another spelling."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kwai_middleware._caller import Caller
from kwai_middleware.errors import CannotAttribute
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of
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

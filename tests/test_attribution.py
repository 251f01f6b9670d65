"""What reaches the wire: whose key, whose name, and who wins when the request has a mind of its own."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import bind_caller
from kwai_middleware._secret import Secret
from kwai_middleware._slot import NOBODY
from kwai_middleware.errors import CannotAttribute
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of, settings
from tests.support.flavours import Flavour
from tests.support.wired import wired


def test_the_gateway_gets_key_and_customer_in_the_body(flavour: Flavour) -> None:
    """The documented members are added, the app's own header and members stay, and the length is right."""
    who = caller("acme", name="Acme", email="a@acme.example", group="corp", metadata={"plan": "pro"})
    sent = wired(flavour, who, {"model": "m", "messages": []})
    assert {
        "model": "m",
        "messages": [],
        "customer_credentials": {"openrouter": {"api_key": key_of("acme")}},
        "customer_params": {
            "customer_identifier": "acme",
            "name": "Acme",
            "email": "a@acme.example",
            "group_identifier": "corp",
            "metadata": {"plan": "pro"},
        },
    } == json.loads(sent.content)
    assert "Bearer app" == sent.headers["authorization"]
    assert str(len(sent.content)) == sent.headers["content-length"]


def test_a_direct_route_gets_the_key_in_the_header(flavour: Flavour) -> None:
    """At OpenRouter the caller's key takes the place of the app's, and the body is the app's own."""
    sent = wired(flavour, caller("acme"), b'{ "model": "m" }', OPENROUTER)
    assert f"Bearer {key_of('acme')}" == sent.headers["authorization"]
    assert b'{ "model": "m" }' == sent.content


def test_nobody_sends_the_apps_own_request(flavour: Flavour) -> None:
    """Without a caller the app's key pays and nothing is added."""
    for url in (GATEWAY, OPENROUTER):
        sent = wired(flavour, None, b'{"model":"m"}', url)
        assert b'{"model":"m"}' == sent.content
        assert "Bearer app" == sent.headers["authorization"]


def test_a_key_without_identity_pays_and_names_nobody(flavour: Flavour) -> None:
    """The vendor drops customer_params without an identifier, so none are sent."""
    sent = json.loads(wired(flavour, caller(identifier=None, name="ignored")).content)
    assert {"model": "m", "customer_credentials": {"openrouter": {"api_key": key_of("acme")}}} == sent


def test_an_identity_without_key_is_attributed_on_the_apps_bill(flavour: Flavour) -> None:
    """byok='prefer' falls back to the app's own key where the user brings none."""
    assert {"model": "m", "customer_params": {"customer_identifier": "acme"}} == json.loads(
        wired(flavour, caller(credentials=())).content
    )
    assert "Bearer app" == wired(flavour, caller(credentials=()), url=OPENROUTER).headers["authorization"]


def test_off_attributes_and_never_sends_the_callers_key(flavour: Flavour) -> None:
    """byok='off' is attribution only."""
    assert {"model": "m", "customer_params": {"customer_identifier": "acme"}} == json.loads(
        wired(flavour, caller(), byok="off").content
    )
    assert "Bearer app" == wired(flavour, caller(), url=OPENROUTER, byok="off").headers["authorization"]


def test_several_providers_each_send_their_key(flavour: Flavour) -> None:
    """The gateway gets one key of each provider; a direct route only its own provider's."""
    who = caller(
        credentials=(
            Credential(provider="openai", api_key=Secret("sk-openai-1")),
            Credential(provider="openrouter", api_key=Secret("sk-or-2")),
        )
    )
    assert {"openai": {"api_key": "sk-openai-1"}, "openrouter": {"api_key": "sk-or-2"}} == json.loads(
        wired(flavour, who).content
    )["customer_credentials"]
    assert "Bearer sk-or-2" == wired(flavour, who, url=OPENROUTER).headers["authorization"]


def test_a_key_of_another_provider_is_never_sent_to_a_direct_route(flavour: Flavour) -> None:
    """OpenRouter must not see a customer's OpenAI key."""
    who = caller(credentials=(Credential(provider="openai", api_key=Secret("sk-openai-1")),))
    sent = wired(flavour, who, url=OPENROUTER)
    assert "Bearer app" == sent.headers["authorization"]
    assert b"sk-openai" not in sent.content


def test_keys_of_one_provider_are_chosen_by_weight(flavour: Flavour) -> None:
    """Weights 3 to 1 give about three quarters of the calls to the first key."""
    who = caller(
        credentials=(Credential(api_key=Secret("heavy"), weight=3.0), Credential(api_key=Secret("light"), weight=1.0))
    )
    chosen = Counter(wired(flavour, who, url=OPENROUTER).headers["authorization"] for _ in range(400))
    assert {"Bearer heavy", "Bearer light"} == set(chosen)
    assert 240 < chosen["Bearer heavy"] < 360  # 300 expected; five standard deviations are 43


# --- who wins when the body has a mind of its own

FORGED = {
    "model": "m",
    "customer_credentials": {"openrouter": {"api_key": "sk-or-v1-forged"}},
    "customer_params": {"customer_identifier": "victim", "name": "Victim", "rate_limit": 5, "metadata": {"a": 1}},
}


def test_the_context_replaces_what_the_body_brings(flavour: Flavour) -> None:
    """A forged key or customer is gone, limits that the app set for the customer stay."""
    sent = wired(flavour, caller(), FORGED)
    assert {
        "model": "m",
        "customer_credentials": {"openrouter": {"api_key": key_of("acme")}},
        "customer_params": {"customer_identifier": "acme", "rate_limit": 5},
    } == json.loads(sent.content)
    assert b"forged" not in sent.content
    assert b"ictim" not in sent.content


@pytest.mark.parametrize("who", [None, caller(credentials=(), identifier=None, name="n")], ids=["nobody", "no key"])
def test_nobody_can_bring_neither_key_nor_identity(flavour: Flavour, who: Caller | None) -> None:
    """A pass-through of a user's own JSON does not borrow another's name or key."""
    assert {"model": "m"} == json.loads(wired(flavour, who, FORGED).content)


def test_a_body_key_may_be_allowed_where_the_caller_has_none(flavour: Flavour) -> None:
    """body_credentials='allow' lets the app hand over keys by itself; identities are still the context's."""
    sent = json.loads(wired(flavour, caller(credentials=()), FORGED, body_credentials="allow").content)
    assert FORGED["customer_credentials"] == sent["customer_credentials"]
    assert "acme" == sent["customer_params"]["customer_identifier"]
    sent = json.loads(wired(flavour, caller(), FORGED, body_credentials="allow").content)
    assert key_of("acme") == sent["customer_credentials"]["openrouter"]["api_key"]


def test_the_body_may_win_by_setting(flavour: Flavour) -> None:
    """on_conflict='body' keeps what the body brings and adds what it lacks."""
    assert FORGED == json.loads(wired(flavour, caller(), FORGED, on_conflict="body").content)
    assert "customer_params" in json.loads(wired(flavour, caller(), on_conflict="body").content)


def test_a_conflict_may_be_an_error(flavour: Flavour) -> None:
    """on_conflict='error' refuses a body with members of ours, and its error holds no key in any frame."""
    for member in ("customer_credentials", "customer_params"):
        with pytest.raises(CannotAttribute, match=member) as caught:
            wired(flavour, caller(), {member: FORGED[member]}, on_conflict="error")
        frame = caught.tb
        while frame is not None:
            if "kwai_middleware" in frame.tb_frame.f_code.co_filename:
                assert key_of("acme") not in repr(frame.tb_frame.f_locals)
            frame = frame.tb_next
    assert "customer_params" in json.loads(wired(flavour, caller(), on_conflict="error").content)


@pytest.mark.parametrize(
    "body",
    [
        b'{"customer_credentials":{"openrouter":{"api_key":"sk-forged"}},"model":"m"}',
        b'{"customer\\u005fcredentials":{"openrouter":{"api_key":"sk-forged"}},"model":"m"}',
        b'{"customer_credentials":1,"model":"m","customer_credentials":{"openrouter":{"api_key":"sk-forged"}}}',
        b' {"model":"m",\n"customer_params":{"customer_identifier":"forged"} , "customer_params" : "forged"}\n ',
        b'{"customer_params":"forged","model":"m"}',
        b'{"customer_params":null,"customer_credentials":null,"model":"m"}',
    ],
)
def test_escaped_and_doubled_members_are_found(flavour: Flavour, body: bytes) -> None:
    """Whichever of two members a parser believes, it reads the bound caller."""
    sent = wired(flavour, caller(), body).content
    assert b"forged" not in sent
    pairs = json.loads(sent, object_pairs_hook=list)
    assert ["customer_credentials", "customer_params", "model"] == sorted(name for name, _ in pairs)
    assert {
        "model": "m",
        "customer_credentials": {"openrouter": {"api_key": key_of("acme")}},
        "customer_params": {"customer_identifier": "acme"},
    } == json.loads(sent)


# --- refusals


@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
def test_a_refusal_may_be_a_local_answer(flavour: Flavour, url: str) -> None:
    """SDKs turn it into one attempt and their own typed error; nothing reached the network."""

    def handler(request: Any) -> Any:
        raise AssertionError("a refused call reached the network")

    client = flavour.answering(handler, settings=settings(byok="only"), deliver=lambda call: None, refuse="response")
    with bind_caller(caller(credentials=())):
        response = flavour.post(client, url, content=b"{}")
    assert 401 == response.status_code
    assert "false" == response.headers["x-should-retry"]
    assert "missing_credential" == response.headers["x-kwai-refused"]
    assert "byok='only'" in response.json()["error"]["message"]
    assert str(response.request.url) == url
    flavour.close(client)


def test_calls_of_one_unit_of_work_are_each_decided_by_their_own_door_and_place(flavour: Flavour) -> None:
    """What one call was given counts for the next one only when door, destination and caller are the same."""
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request)
        return flavour.library.Response(200, json={})

    theirs, ours = (
        flavour.answering(handler, settings=settings(byok=byok), deliver=lambda call: None)
        for byok in ("prefer", "off")
    )

    async def post(client: Any, url: str) -> None:
        answered = client.post(url, content=b'{"model":"m"}', headers={"authorization": "Bearer app"})
        if flavour.asynchronous:
            await answered

    async def all_of_them() -> None:
        with bind_caller(caller("acme")):
            for client, url in ((theirs, OPENROUTER), (ours, OPENROUTER), (theirs, GATEWAY), (ours, GATEWAY)) * 2:
                await post(client, url)
                await post(client, url)
            with bind_caller(caller("globex")):
                await post(theirs, OPENROUTER)
            await post(theirs, OPENROUTER)

    flavour.run(all_of_them())
    flavour.close(theirs)
    flavour.close(ours)
    keys = [
        (
            request.headers["authorization"].removeprefix("Bearer "),
            json.loads(request.read()).get("customer_credentials", {}).get("openrouter", {}).get("api_key"),
        )
        for request in sent
    ]
    acme, globex = key_of("acme"), key_of("globex")
    each = [(acme, None), ("app", None), ("app", acme), ("app", None)]
    assert [key for key in each * 2 for _ in range(2)] == keys[:16]
    assert [(globex, None), (acme, None)] == keys[16:]


def test_nothing_is_kept_of_calls_outside_of_any_unit_of_work(flavour: Flavour) -> None:
    """What stands for nobody lasts as long as the process, and is everybody's."""
    client = flavour.answering(
        lambda request: flavour.library.Response(200, json={}), settings=settings(), deliver=lambda call: None
    )
    assert 200 == flavour.post(client, OPENROUTER, content=b"{}").status_code
    flavour.close(client)
    assert NOBODY.plan is None

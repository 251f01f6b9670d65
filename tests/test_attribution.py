"""What reaches the wire: whose key, whose name, and the app's own bytes around them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware import _notices
from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import bind_caller
from kwai_middleware._outbound.json_members import read_object, spliced
from kwai_middleware._secret import Secret
from kwai_middleware.errors import CannotAttribute, MissingCredential
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of, settings
from tests.support.flavours import Flavour


def _wire(flavour: Flavour, who: Caller | None, body: Any = None, url: str = GATEWAY, **options: Any) -> Any:
    """The request that reaches the network when `who` sends `body`."""
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request)
        return flavour.library.Response(200, json={})

    content = body if isinstance(body, bytes) else json.dumps({"model": "m"} if body is None else body).encode()
    client = flavour.answering(handler, settings=settings(**options), deliver=lambda call: None)
    with bind_caller(who):
        flavour.post(client, url, content=content, headers={"authorization": "Bearer app"})
    flavour.close(client)
    return sent[0]


def test_the_gateway_gets_key_and_customer_in_the_body(flavour: Flavour) -> None:
    """The documented members are added, the app's own header and members stay, and the length is right."""
    who = caller("acme", name="Acme", email="a@acme.example", group="corp", metadata={"plan": "pro"})
    sent = _wire(flavour, who, {"model": "m", "messages": []})
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
    sent = _wire(flavour, caller("acme"), b'{ "model": "m" }', OPENROUTER)
    assert f"Bearer {key_of('acme')}" == sent.headers["authorization"]
    assert b'{ "model": "m" }' == sent.content


def test_nobody_sends_the_apps_own_request(flavour: Flavour) -> None:
    """Without a caller the app's key pays and nothing is added."""
    for url in (GATEWAY, OPENROUTER):
        sent = _wire(flavour, None, b'{"model":"m"}', url)
        assert b'{"model":"m"}' == sent.content
        assert "Bearer app" == sent.headers["authorization"]


def test_a_key_without_identity_pays_and_names_nobody(flavour: Flavour) -> None:
    """The vendor drops customer_params without an identifier, so none are sent."""
    sent = json.loads(_wire(flavour, caller(identifier=None, name="ignored")).content)
    assert {"model": "m", "customer_credentials": {"openrouter": {"api_key": key_of("acme")}}} == sent


def test_an_identity_without_key_is_attributed_on_the_apps_bill(flavour: Flavour) -> None:
    """byok='prefer' falls back to the app's own key where the user brings none."""
    assert {"model": "m", "customer_params": {"customer_identifier": "acme"}} == json.loads(
        _wire(flavour, caller(credentials=())).content
    )
    assert "Bearer app" == _wire(flavour, caller(credentials=()), url=OPENROUTER).headers["authorization"]


def test_off_attributes_and_never_sends_the_callers_key(flavour: Flavour) -> None:
    """byok='off' is attribution only."""
    assert {"model": "m", "customer_params": {"customer_identifier": "acme"}} == json.loads(
        _wire(flavour, caller(), byok="off").content
    )
    assert "Bearer app" == _wire(flavour, caller(), url=OPENROUTER, byok="off").headers["authorization"]


def test_several_providers_each_send_their_key(flavour: Flavour) -> None:
    """The gateway gets one key of each provider; a direct route only its own provider's."""
    who = caller(
        credentials=(
            Credential(provider="openai", api_key=Secret("sk-openai-1")),
            Credential(provider="openrouter", api_key=Secret("sk-or-2")),
        )
    )
    assert {"openai": {"api_key": "sk-openai-1"}, "openrouter": {"api_key": "sk-or-2"}} == json.loads(
        _wire(flavour, who).content
    )["customer_credentials"]
    assert "Bearer sk-or-2" == _wire(flavour, who, url=OPENROUTER).headers["authorization"]


def test_a_key_of_another_provider_is_never_sent_to_a_direct_route(flavour: Flavour) -> None:
    """OpenRouter must not see a customer's OpenAI key."""
    who = caller(credentials=(Credential(provider="openai", api_key=Secret("sk-openai-1")),))
    sent = _wire(flavour, who, url=OPENROUTER)
    assert "Bearer app" == sent.headers["authorization"]
    assert b"sk-openai" not in sent.content


def test_keys_of_one_provider_are_chosen_by_weight(flavour: Flavour) -> None:
    """Weights 3 to 1 give about three quarters of the calls to the first key."""
    who = caller(
        credentials=(Credential(api_key=Secret("heavy"), weight=3.0), Credential(api_key=Secret("light"), weight=1.0))
    )
    chosen = Counter(_wire(flavour, who, url=OPENROUTER).headers["authorization"] for _ in range(400))
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
    sent = _wire(flavour, caller(), FORGED)
    assert {
        "model": "m",
        "customer_credentials": {"openrouter": {"api_key": key_of("acme")}},
        "customer_params": {"customer_identifier": "acme", "rate_limit": 5},
    } == json.loads(sent.content)
    assert b"forged" not in sent.content
    assert b"ictim" not in sent.content


@pytest.mark.parametrize("who", [None, caller(credentials=(), identifier=None, thread="t")], ids=["nobody", "no key"])
def test_nobody_can_bring_neither_key_nor_identity(flavour: Flavour, who: Caller | None) -> None:
    """A pass-through of a user's own JSON does not borrow another's name or key."""
    assert {"model": "m"} == json.loads(_wire(flavour, who, FORGED).content)


def test_a_body_key_may_be_allowed_where_the_caller_has_none(flavour: Flavour) -> None:
    """body_credentials='allow' lets the app hand over keys by itself; identities are still the context's."""
    sent = json.loads(_wire(flavour, caller(credentials=()), FORGED, body_credentials="allow").content)
    assert FORGED["customer_credentials"] == sent["customer_credentials"]
    assert "acme" == sent["customer_params"]["customer_identifier"]
    sent = json.loads(_wire(flavour, caller(), FORGED, body_credentials="allow").content)
    assert key_of("acme") == sent["customer_credentials"]["openrouter"]["api_key"]


def test_the_body_may_win_by_setting(flavour: Flavour) -> None:
    """on_conflict='body' keeps what the body brings and adds what it lacks."""
    assert FORGED == json.loads(_wire(flavour, caller(), FORGED, on_conflict="body").content)
    assert "customer_params" in json.loads(_wire(flavour, caller(), on_conflict="body").content)


def test_a_conflict_may_be_an_error(flavour: Flavour) -> None:
    """on_conflict='error' refuses a body with members of ours, and its error holds no key in any frame."""
    for member in ("customer_credentials", "customer_params"):
        with pytest.raises(CannotAttribute, match=member) as caught:
            _wire(flavour, caller(), {member: FORGED[member]}, on_conflict="error")
        frame = caught.tb
        while frame is not None:
            if "kwai_middleware" in frame.tb_frame.f_code.co_filename:
                assert key_of("acme") not in repr(frame.tb_frame.f_locals)
            frame = frame.tb_next
    assert "customer_params" in json.loads(_wire(flavour, caller(), on_conflict="error").content)


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
    sent = _wire(flavour, caller(), body).content
    assert b"forged" not in sent
    pairs = json.loads(sent, object_pairs_hook=list)
    assert ["customer_credentials", "customer_params", "model"] == sorted(name for name, _ in pairs)
    assert {
        "model": "m",
        "customer_credentials": {"openrouter": {"api_key": key_of("acme")}},
        "customer_params": {"customer_identifier": "acme"},
    } == json.loads(sent)


# --- bodies that cannot carry it

UNREADABLE = [
    b"",
    b"[]",
    b'"text"',
    b"{",
    b'{"a":1}{"b":2}',
    b"\xff\xfe{}",
    b'{"a" 1}',
    b'{"a":1 "b":2}',
    b"{1:2}",
    b"{'a':1}",
    b'{"a":1,}',
    b'{"a":NaN}x',
    b'{"a":' * 20000,
    b"[" * 20000,
]

# What Python's own parser takes, and so a vendor's server may, though it is no proper JSON.
FORGED_TEXT = (
    '"customer_params":{"customer_identifier":"forged"},"customer_credentials":{"openrouter":{"api_key":"forged"}}'
)
LENIENT = {
    "half an emoji": ('{"model":"m","a":"\\ud83d",' + FORGED_TEXT + "}").encode(),
    "NaN": ('{"a":NaN, "b" : -Infinity ,\n' + FORGED_TEXT + ',"model":"m"}').encode(),
    "a byte order mark": ('{"model":"m",' + FORGED_TEXT + "}").encode("utf-8-sig"),
    "UTF-16": ('{"model":"m",' + FORGED_TEXT + "}").encode("utf-16"),
    "UTF-32": ('{"model":"m",' + FORGED_TEXT + "}").encode("utf-32"),
    "a control character": ('{"model":"m","a":"tab\there\x01",' + FORGED_TEXT + "}").encode(),
    "a name with half an emoji": ('{"\\ud83d":1,"model":"m",' + FORGED_TEXT + "}").encode(),
    "nothing but NaN": b'{"model":"m","a":NaN}',
    "an empty object": "{ }".encode("utf-16"),
}


@pytest.mark.parametrize("body", LENIENT.values(), ids=LENIENT)
def test_what_only_a_lenient_parser_reads_is_attributed_too(flavour: Flavour, body: bytes) -> None:
    """An end user who can put half an emoji into a prompt cannot hide whose call it is, nor get past the context."""
    for who in (caller(), caller(credentials=()), None):
        sent = _wire(flavour, who, body).content
        assert b"forged" not in sent
        read = json.loads(sent, strict=False)
        original = json.loads(body, strict=False)
        for name in ("customer_params", "customer_credentials"):
            original.pop(name, None)
        ours = {name: read.pop(name) for name in ("customer_params", "customer_credentials") if name in read}
        assert repr(original) == repr(read)
        assert ours == (
            {}
            if who is None
            else {"customer_params": {"customer_identifier": "acme"}}
            | ({"customer_credentials": {"openrouter": {"api_key": key_of("acme")}}} if who.credentials else {})
        )


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_an_unreadable_body_with_a_key_is_refused(flavour: Flavour, body: bytes) -> None:
    """It would go out on the app's bill, so it does not go out."""
    with pytest.raises(CannotAttribute, match="send it as json="):
        _wire(flavour, caller(), body)


@pytest.mark.parametrize("who", [None, caller(credentials=())], ids=["nobody", "no key"])
@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_an_unreadable_body_without_a_key_passes(flavour: Flavour, body: bytes, who: Caller | None) -> None:
    """The vendor gives its own error for it; that a customer's name is missing from it is counted."""
    before = _notices.counts().get("unattributed", 0)
    assert body == _wire(flavour, who, body).content
    assert before + (who is not None) == _notices.counts().get("unattributed", 0)


def test_a_streamed_body_with_a_key_is_refused_before_it_is_read(flavour: Flavour) -> None:
    """A generator cannot take new members, and not one part of it was taken out."""
    read: list[bytes] = []

    def parts() -> Any:
        read.append(b"{}")
        yield b"{}"

    async def async_parts() -> Any:
        for part in parts():
            yield part

    client = flavour.answering(
        lambda request: flavour.library.Response(200), settings=settings(), deliver=lambda call: None
    )
    with bind_caller(caller()), pytest.raises(CannotAttribute):
        flavour.post(client, GATEWAY, content=async_parts() if flavour.asynchronous else parts())
    assert [] == read
    flavour.close(client)


def test_a_multipart_body_with_a_key_is_refused(flavour: Flavour) -> None:
    """Form fields are not members of a JSON object."""
    client = flavour.answering(
        lambda request: flavour.library.Response(200), settings=settings(), deliver=lambda call: None
    )
    with bind_caller(caller()), pytest.raises(CannotAttribute):
        flavour.post(client, GATEWAY, files={"file": b"x"})
    flavour.close(client)


def test_a_streamed_body_reaches_a_direct_route(flavour: Flavour) -> None:
    """There the key stands in a header, so any body will do."""
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append((request.headers["authorization"], request.content))
        return flavour.library.Response(200)

    async def async_parts() -> Any:
        yield b'{"model":'
        yield b'"m"}'

    client = flavour.answering(handler, settings=settings(), deliver=lambda call: None)
    with bind_caller(caller()):
        flavour.post(
            client, OPENROUTER, content=async_parts() if flavour.asynchronous else iter([b'{"model":', b'"m"}'])
        )
    assert [(f"Bearer {key_of('acme')}", b'{"model":"m"}')] == sent
    flavour.close(client)


# --- only the caller's key


@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
@pytest.mark.parametrize("who", [None, caller(credentials=())], ids=["nobody", "no key"])
def test_only_means_no_call_without_the_callers_key(flavour: Flavour, who: Caller | None, url: str) -> None:
    """byok='only' refuses before a byte is sent and says what to do."""
    with pytest.raises(MissingCredential, match="send the caller's key"):
        _wire(flavour, who, url=url, byok="only")


def test_a_caller_may_tighten_and_not_loosen(flavour: Flavour) -> None:
    """Where the app prefers, a caller's own `only` or `off` counts; what the app insists on, no caller undoes."""
    assert "customer_credentials" not in json.loads(_wire(flavour, caller(byok="off")).content)
    with pytest.raises(MissingCredential):
        _wire(flavour, caller(credentials=(), byok="only"))
    for own in ("prefer", "off"):
        with pytest.raises(MissingCredential):
            _wire(flavour, caller(credentials=(), byok=own), byok="only")
        assert "customer_credentials" in json.loads(_wire(flavour, caller(byok=own), byok="only").content)
    for own in ("only", "prefer", None):
        assert "customer_credentials" not in json.loads(_wire(flavour, caller(byok=own), byok="off").content)
    for own in ("only", "prefer", None):
        assert "customer_credentials" in json.loads(_wire(flavour, caller(byok=own)).content)


@pytest.mark.parametrize(
    ("app", "own", "expected"),
    [
        ("full", None, "full"),
        ("full", "metadata", "metadata"),
        ("metadata", "full", "metadata"),
        ("metadata", "none", "none"),
        ("none", "full", "none"),
    ],
)
def test_a_caller_may_have_less_recorded_and_not_more(flavour: Flavour, app: Any, own: Any, expected: str) -> None:
    """Of the app's and the caller's `capture` the stricter one counts."""
    seen: list[Any] = []
    client = flavour.answering(
        lambda request: flavour.library.Response(200, json={}), settings=settings(capture=app), deliver=seen.append
    )
    with bind_caller(caller(capture=own)):
        flavour.post(client, OPENROUTER, content=b"{}")
    assert [expected] == [call.capture for call in seen]
    flavour.close(client)


def test_a_request_without_a_length_gets_none(flavour: Flavour) -> None:
    """An app that frames its body itself goes on doing so."""
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request)
        return flavour.library.Response(200)

    client = flavour.answering(handler, settings=settings(), deliver=lambda call: None)
    headers = {"transfer-encoding": "chunked"}
    with bind_caller(caller()):
        response = flavour.post(client, GATEWAY, content=b'{"model":"m"}', headers=headers)
    # httpx adds a length of its own beside it, httpx2 does not.
    assert ("content-length" in response.request.headers) == ("content-length" in sent[0].headers)
    assert "acme" == json.loads(sent[0].content)["customer_params"]["customer_identifier"]
    flavour.close(client)


def test_only_pins_the_gateway_to_the_callers_provider(flavour: Flavour) -> None:
    """No fall-back to a key that is not the caller's, and no second provider's key."""
    who = caller(
        credentials=(
            Credential(provider="openai", api_key=Secret("sk-openai-1")),
            Credential(provider="openrouter", api_key=Secret("sk-or-2")),
        )
    )
    sent = _wire(flavour, who, byok="only")
    assert {"openrouter": {"api_key": "sk-or-2"}} == json.loads(sent.content)["customer_credentials"]
    assert json.loads(sent.content)["disable_fallback"] is True
    assert "openrouter" == sent.headers["x-respan-route-provider"]


@pytest.mark.parametrize("name", ["X-Data-Respan-Params", "x-data-keywordsai-params"])
def test_only_refuses_headers_that_bring_another_payer(flavour: Flavour, name: str) -> None:
    """They carry the same parameters as a body, and the vendor lets them win over it."""
    client = flavour.answering(
        lambda request: flavour.library.Response(200), settings=settings(byok="only"), deliver=lambda call: None
    )
    with bind_caller(caller()), pytest.raises(CannotAttribute, match=name.lower()):
        flavour.post(client, GATEWAY, content=b"{}", headers={name: "e30="})
    flavour.close(client)


def test_only_lets_no_body_win(flavour: Flavour) -> None:
    """on_conflict='body' is about names; where only the caller may pay, the caller's key goes out."""
    sent = json.loads(_wire(flavour, caller(), FORGED, byok="only", on_conflict="body").content)
    assert {"openrouter": {"api_key": key_of("acme")}} == sent["customer_credentials"]


@pytest.mark.parametrize("member", ["fallback_models", "load_balance_group", "credential_override", "respan_params"])
def test_only_refuses_bodies_that_bring_another_payer(flavour: Flavour, member: str) -> None:
    """Each of these could put the call on another bill."""
    with pytest.raises(CannotAttribute, match=member):
        _wire(flavour, caller(), {"model": "m", member: {}}, byok="only")


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


# --- the bytes themselves

_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_names = st.text(max_size=8) | st.sampled_from(["customer_credentials", "customer_params", "model"])
_blanks = st.text(alphabet=" \n\r\t", max_size=3)


@given(
    body=st.dictionaries(_names, _json_values, max_size=6),
    before=_blanks,
    after=_blanks,
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
    changes=st.dictionaries(_names, st.none() | _json_values.map(lambda value: json.dumps(value).encode()), max_size=3),
)
def test_splicing_changes_what_it_should_and_nothing_else(
    body: dict[str, Any],
    before: str,
    after: str,
    indent: int | None,
    ascii_only: bool,
    changes: dict[str, bytes | None],
) -> None:
    """For every body and every change: all parsers read the same, as if a dict had been updated."""
    try:
        data = (before + json.dumps(body, indent=indent, ensure_ascii=ascii_only) + after).encode()
    except UnicodeEncodeError:
        return
    read = read_object(data)
    assert read is not None
    data, members = read
    expected = {**body, **{name: None if value is None else json.loads(value) for name, value in changes.items()}}
    for name, value in changes.items():
        if value is None:
            del expected[name]
    spliced_body = b"".join(spliced(data, members, changes))
    pairs = json.loads(spliced_body, object_pairs_hook=lambda pairs: pairs)
    assert expected == json.loads(spliced_body)
    assert len(expected) == len(pairs)


def test_a_large_body_is_not_copied() -> None:
    """Its head goes out as a view on the app's own bytes."""
    body = json.dumps({"messages": "x" * 1_000_000}).encode()
    read = read_object(body)
    assert read is not None
    assert read[0] is body
    head, tail = spliced(*read, {"a": b"1"})
    assert isinstance(head, memoryview)
    assert head.obj is body
    assert b',"a":1}' == tail

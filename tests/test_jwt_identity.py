"""Tokens as identities: what is read from those that hold, what is refused, and what is never shown."""

from __future__ import annotations

import json
import logging
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kwai_middleware import (
    ASGIMiddleware,
    Caller,
    ConfigurationError,
    HeaderCredentials,
    HeaderIdentity,
    Secret,
    first_of,
)
from kwai_middleware._inbound.asgi_request import ASGIRequest
from kwai_middleware._inbound.request import Interest
from kwai_middleware._jwt.reading import header_of
from kwai_middleware.errors import RequestRefused
from kwai_middleware.jwt_identity import JWTIdentity
from tests.apps.doors import DOORS, Door, Seen
from tests.support.documents import fenced
from tests.support.issuer import AUDIENCE, NAME, NOW, Clock, bearer, claims, key, part, pem, signed
from tests.support.processes import PROJECT

SECRET = "a-shared-secret-of-thirty-two-bytes!"
KEY = key("P-256")


def identity(**more: Any) -> JWTIdentity:
    """What believes the test's own key."""
    options: dict[str, Any] = {"key": pem(KEY), "issuer": NAME, "audience": AUDIENCE, "clock": Clock()}
    return JWTIdentity(**(options | more))


IDENTITY = identity()
TOKEN = signed(claims(), KEY)
ACME = Caller(identifier="acme", issuer=NAME)


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Each test holds for both doors."""
    chosen: Door = request.param
    return chosen


def refused(seen: Seen) -> str:
    """Assert that a request was answered with 401 for its token; returns why."""
    assert (401, False, None) == (seen.status, seen.app_ran, seen.caller)
    assert "authorization" == seen.problem["header"]
    assert "www-authenticate" in seen.headers
    detail: str = seen.problem["detail"]
    return detail


def ask(token: str, **more: Any) -> Seen:
    """Ask with a token through the quicker of the doors."""
    return DOORS[1].ask(bearer(token), identify=identity(**more) if more else IDENTITY)


# --- what is read


def test_keys_and_tokens_are_not_in_one_header() -> None:
    """A token of a sign-in service is never taken for a key."""
    identity = JWTIdentity(
        key="a-secret-of-tests-0123456789-0123456789", algorithms=["HS256"], issuer="i", audience="a"
    )
    keys = HeaderCredentials({"authorization": "openrouter"})
    app: Any = None
    for combined in (identity, first_of(HeaderIdentity(), identity)):
        with pytest.raises(ConfigurationError, match="read the same header"):
            ASGIMiddleware(app, identify=combined, credentials=keys)


def test_a_token_that_holds_is_a_caller(door: Door) -> None:
    """Identifier, name and e-mail address come from the usual claims, and the issuer vouches for them."""
    token = signed(claims(name="Acme", email="a@acme.example"), KEY)
    seen = door.ask(bearer(token), identify=IDENTITY, required=True)
    assert Caller(identifier="acme", name="Acme", email="a@acme.example", issuer=NAME) == seen.caller
    assert "acme" == seen.customer_id


@pytest.mark.parametrize("headers", [[], [("authorization", "Basic YTpi")], [("authorization", "")]])
def test_no_token_is_nobody(door: Door, headers: Any) -> None:
    """A request without one is the app's to judge: nobody's, or 401 where an identity is required."""
    seen = door.ask(headers, identify=IDENTITY)
    assert (True, None) == (seen.app_ran, seen.caller)
    assert 401 == door.ask(headers, identify=IDENTITY, required=True).status


def test_another_scheme_may_hold_commas(door: Door) -> None:
    """The parameters of Digest are no two headers, and none of ours."""
    headers = [("authorization", 'Digest username="a", realm="b"')]
    assert door.ask(headers, identify=IDENTITY).app_ran


def test_a_header_sent_twice_is_refused(door: Door) -> None:
    """Two tokens are 400, never the first of them; as two lines and joined by a server."""
    seen = door.ask([*bearer(TOKEN), *bearer(TOKEN)], identify=IDENTITY)
    assert (400, "authorization") == (seen.status, seen.problem["header"])


def test_a_header_that_is_too_long_is_refused(door: Door) -> None:
    """Up to 16 KiB are read; more are refused before anything is decoded."""
    longest = signed(claims(filler="x" * 11_000), KEY)
    assert 4096 < len(longest) < 16 * 1024
    assert ACME == door.ask(bearer(longest), identify=IDENTITY).caller
    assert 400 == door.ask(bearer(TOKEN + "x" * 16 * 1024), identify=IDENTITY).status


def test_the_scheme_is_read_in_any_case(door: Door) -> None:
    """`bearer` is `Bearer`, and blanks around the token are none of it."""
    assert ACME == door.ask([("authorization", f"bEARER  {TOKEN} ")], identify=IDENTITY).caller


@pytest.mark.parametrize("value", [TOKEN, f"Bearer {TOKEN}"], ids=["alone", "bearer"])
def test_another_header(door: Door, value: str) -> None:
    """Proxies that sign in hand the token on in a header of their own, without a scheme; others are not looked at."""
    own = identity(header="X-Assertion")
    assert ACME == door.ask([("x-assertion", value)], identify=own).caller
    assert door.ask(bearer(TOKEN), identify=own).caller is None
    assert "x-assertion" == door.ask([("x-assertion", "Basic x")], identify=own).problem["header"]


@pytest.mark.parametrize("path", ["org", ("org",), ("app", "org", "id")], ids=str)
def test_where_claims_are(door: Door, path: Any) -> None:
    """A claim may have any name, dots and all, or be inside of others; what is not there is left out."""
    own = identity(claims={"identifier": "https://acme.example/id", "group": path, "thread": ("sub", "deeper")})
    said = {"https://acme.example/id": "u1", "org": "g", "app": {"org": {"id": "g"}}}
    assert (
        Caller(identifier="u1", group="g", issuer=NAME)
        == door.ask(bearer(signed(claims(**said), KEY)), identify=own).caller
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (" acme\t", "acme"),
        ("Zu\u0308rich", "Z\u00fcrich"),
        ("\u2003acme\u00a0", "acme"),
        ("auth0|a,b", "auth0|a,b"),
    ],
)
def test_claims_are_texts_in_one_form(value: Any, text: str) -> None:
    """One customer has one spelling; a whole number is its digits, and a comma is no matter here."""
    caller = ask(signed(claims(sub=value), KEY)).caller
    assert caller is not None
    assert text == caller.identifier


@pytest.mark.parametrize(
    "value",
    [
        True, 1.5, [], ["acme"], {"id": "acme"}, "", " ", "\u00a0", None, "x" * 121, 10**130, "a\nb", "acme\n", "a\x00",
        "a\x85b", "\ud800",
    ],
    ids=repr,
)  # fmt: skip
def test_a_claim_that_identifies_nobody_is_refused(value: Any) -> None:
    """A signature makes no identifier of a list, nor of a line end that would forge a line of a log."""
    why = refused(ask(signed(claims(sub=value), KEY)))
    assert "identifier" in why
    assert why.isprintable()


@pytest.mark.parametrize("value", [False, 2.0, [], {}, "a\rb", "x" * 5000], ids=repr)
def test_a_broken_claim_beside_it_is_refused(value: Any) -> None:
    """A name that cannot be shown is not dropped in silence."""
    assert "name" in refused(ask(signed(claims(name=value), KEY)))


def test_who_the_issuer_is_may_be_left_open() -> None:
    """With the checks switched off, whoever has the key is believed; the issuer is named if the token names one."""
    free = {"issuer": None, "audience": None}
    assert ACME == ask(signed(claims(aud=None), KEY), **free).caller
    assert Caller(identifier="acme") == ask(signed(claims(iss=None, aud=5), KEY), **free).caller
    assert "issuer" in refused(ask(signed(claims(iss=5), KEY), **free))


# --- what is asked of the claims


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE], ["other", 5, AUDIENCE]])
def test_one_audience_is_enough(audience: Any) -> None:
    """A token may be meant for several services, and a service may have several names."""
    token = signed(claims(aud=audience), KEY)
    assert ACME == ask(token).caller
    assert ACME == ask(token, audience=("mine", AUDIENCE), issuer=["x", NAME]).caller


@pytest.mark.parametrize("audience", ["other", [], ["other"], None, 5, {AUDIENCE: 1}, [[AUDIENCE]], "", AUDIENCE + "/"])
def test_a_token_for_another_service_is_refused(audience: Any) -> None:
    """A token that somebody gave to another service is not good here."""
    assert "audience" in refused(ask(signed(claims(aud=audience), KEY)))


@pytest.mark.parametrize("name", ["https://other.example/", NAME[:-1], NAME.upper(), [NAME], None, 5])
def test_a_token_of_another_issuer_is_refused(name: Any) -> None:
    """Another tenant of the same service signs with the same keys; its name decides, to the letter."""
    assert "issuer" in refused(ask(signed(claims(iss=name), KEY)))


@pytest.mark.parametrize(
    "value",
    [None, "1800003600", True, [], {}, -1, 1e400, 10**12, 10**300, "soon", {"$date": 1}],
    ids=repr,
)  # fmt: skip
def test_what_is_no_time_is_refused(value: Any) -> None:
    """A token that never ends, or whose end could be read in two ways, is not believed."""
    payload = json.dumps(claims(exp=value)).replace("Infinity", "1e400").encode()
    assert "(exp)" in refused(ask(signed(payload, KEY)))


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize(("value", "holds"), [(NOW + 10, True), (NOW + 10.5, False), ("1", False), (None, False)])
def test_a_token_begins_when_it_says(name: str, value: Any, holds: bool) -> None:
    """A time in the future is believed as far as clocks may differ, and only if it is a time."""
    seen = ask(signed({**claims(), name: value}, KEY))
    assert (ACME == seen.caller) if holds else f"({name})" in refused(seen)


@pytest.mark.parametrize("leeway", [0, 10.0])
def test_a_token_ends_when_it_says(leeway: float) -> None:
    """It holds up to its end and as long after that as clocks may differ, also when it is remembered."""
    clock = Clock()
    own = identity(clock=clock, leeway=leeway)
    token = signed(claims(exp=int(NOW) + 100), KEY)
    for seconds, holds in ((0, True), (99 + leeway, True), (100 + leeway, False), (200, False)):
        clock.now = NOW + seconds
        seen = DOORS[1].ask(bearer(token), identify=own)
        assert (ACME == seen.caller) if holds else "expired" in refused(seen)
    assert "expired" in refused(ask(signed(claims(exp=NOW - leeway), KEY), leeway=leeway))


def test_until_when_it_holds_is_told(door: Door) -> None:
    """The request learns when its caller ends, each time: when verified, and when remembered."""
    own, told = identity(leeway=5), []

    def looking(request: Any) -> Any:
        answer = own(request)
        told.append(request.valid_until)
        return answer

    for _ in range(2):
        assert ACME == door.ask(bearer(TOKEN), identify=looking).caller
    assert [NOW + 3605] * 2 == told


# --- tokens that are none


def _spelled(token: str) -> list[Any]:
    header, payload, signature = token.split(".")
    other = "B" if signature[-1] == "A" else "A"
    return [
        pytest.param("", id="empty"),
        pytest.param("x", id="one-part"),
        pytest.param(f"{header}.{payload}", id="two-parts"),
        pytest.param(f"{header}.{payload}.", id="no-signature"),
        pytest.param(f"{token}.{signature}", id="four-parts"),
        pytest.param(f".{payload}.{signature}", id="no-header"),
        pytest.param(f"{header}..{signature}", id="no-payload"),
        pytest.param(f"{header}=.{payload}.{signature}", id="padded"),
        pytest.param(f"{header}.{payload}.{signature}==", id="padded-signature"),
        pytest.param(token.replace(".", " . "), id="blanks"),
        pytest.param(f"{header}.{payload}.{signature[:-4]}", id="truncated"),
        pytest.param(f"{header}.{payload}.{signature[:-1]}", id="truncated-by-one"),
        pytest.param(f"{header}.{payload}.{signature[:-1]}{other}", id="last-bits"),
        pytest.param(f"{header}.{part(claims(sub='mallory'))}.{signature}", id="other-claims"),
        pytest.param(f"{part(b'[]')}.{payload}.{signature}", id="header-a-list"),
        pytest.param(f"{part(b'{')}.{payload}.{signature}", id="header-no-json"),
        pytest.param(f"{part(b'[' * 9000)}.{payload}.{signature}", id="header-deep"),
        pytest.param(f"{part(chr(0xFEFF).encode() + b'{}')}.{payload}.{signature}", id="header-bom"),
        pytest.param(f"{part('{}'.encode('utf-16'))}.{payload}.{signature}", id="header-utf-16"),
        pytest.param("\u00e9" + token, id="not-ascii"),
        pytest.param("a" * 5 + f".{payload}.{signature}", id="no-base64"),
    ]


@pytest.mark.parametrize("token", _spelled(TOKEN))
def test_what_is_no_token_is_refused(token: str) -> None:
    """There is one way to write a token; everything else is refused, and says so."""
    assert re.search(r"malformed|signature|key|algorithm", refused(ask(token)))


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_bits_that_nobody_reads_are_read(changed: int) -> None:
    """The last character of a part may have bits to spare; set, they would make two tokens of one."""
    parts = [part(b"{}"), part(b"abcd"), part(b"abcd")]
    assert {} == header_of(".".join(parts))
    parts[changed] = parts[changed][:-1] + chr(ord(parts[changed][-1]) + 1)
    with pytest.raises(ValueError):
        header_of(".".join(parts))


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        pytest.param(b'{"alg":"none","alg":"ES256"}', b"{}", id="header-twice"),
        pytest.param(b'{"alg":"ES256","kid":5}', b"{}", id="kid-a-number"),
        pytest.param(b'{"alg":"ES256","typ":5}', b"{}", id="typ-a-number"),
        pytest.param(b'{"alg":"ES256"}', b'{"sub":"mallory","sub":"acme"}', id="payload-twice"),
        pytest.param(b'{"alg":"ES256"}', b'{"sub":"acme","a":{"b":1,"\\u0062":1}}', id="payload-twice-inside"),
        pytest.param(b'{"alg":"ES256"}', b'{"exp":NaN}', id="nan"),
        pytest.param(b'{"alg":"ES256"}', b'{"exp":Infinity}', id="infinity"),
        pytest.param(b'{"alg":"ES256"}', b'{"exp":' + b"9" * 5000 + b"}", id="digits"),
        pytest.param(b'{"alg":"ES256"}', b"[" * 9000, id="deep"),
        pytest.param(b'{"alg":"ES256"}', b'"acme"', id="a-text"),
        pytest.param(b'{"alg":"ES256"}', b'{"sub":"\xff"}', id="not-utf-8"),
        pytest.param(b'{"alg":"ES256"}', '{"sub":"acme"}'.encode("utf-16"), id="utf-16"),
    ],
)
def test_json_that_can_be_read_in_two_ways_is_refused(header: bytes, payload: bytes) -> None:
    """Even signed: a doubled member is one thing to us and another to whoever looked at it before us."""
    assert "The token is malformed." == refused(ask(signed(payload, KEY, header=header)))


@pytest.mark.parametrize("more", [{"crit": ["b64"], "b64": True}, {"crit": []}, {"crit": ["exp"]}, {"b64": False}])
def test_extensions_are_refused(more: dict[str, Any]) -> None:
    """Who says that something must be understood is not told that it was."""
    assert "(crit)" in refused(ask(signed(claims(), KEY, header=more)))


@pytest.mark.parametrize(
    ("kind", "holds"),
    [(None, True), ("JWT", True), ("at+jwt", True), ("application/AT+JWT", True), ("logout+jwt", False), ("", False)],
)
def test_tokens_for_something_else_are_refused(kind: str | None, holds: bool) -> None:
    """A token that tells of a logout lets nobody in, though the same issuer has signed it."""
    seen = ask(signed(claims(), KEY, header={"typ": kind}))
    assert (ACME == seen.caller) if holds else "(typ)" in refused(seen)


@given(data=st.data())
def test_a_changed_token_never_holds(data: st.DataObject) -> None:
    """Whatever one character more, less or other makes of a token, it is refused, and nothing else happens."""
    place = data.draw(st.integers(0, len(TOKEN)))
    cut = data.draw(st.integers(0, 3))
    put = data.draw(st.text("ABab01-_.=,+/ \t{}\u00e9", max_size=3))
    changed = TOKEN[:place] + put + TOKEN[place + cut :]
    assume(changed.strip(" \t") != TOKEN)
    seen = ask(changed)
    assert (False, None) == (seen.app_ran, seen.caller)
    assert seen.status in (400, 401)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=130) | st.just(AUDIENCE) | st.just(NAME),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    payload=st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "iss", "aud", "name", "email"]), json_values)
)
def test_any_signed_claims_are_a_caller_or_a_401(payload: dict[str, Any]) -> None:
    """Whatever an issuer signs, it becomes a whole caller or a refusal without a value; never anything else."""
    for claimed in (payload, claims() | payload):
        seen = ask(signed(claimed, KEY))
        if seen.app_ran:
            assert seen.caller is not None
            assert seen.caller.identifier
            assert claimed["iss"] == NAME == seen.caller.issuer
        else:
            assert refused(seen)


# --- what is remembered, taken out and shown


def test_tokens_are_remembered_by_their_digest() -> None:
    """One that holds is verified once; neither it nor one that does not hold is kept, and the number is bounded."""
    own = identity(max_tokens=20)
    tokens = [signed(claims(sub=f"c{number}"), KEY) for number in range(30)]
    callers = [DOORS[1].ask(bearer(token), identify=own).caller for token in tokens]
    remembered = own._verifier._remembered
    assert 10 <= len(remembered) <= 20
    assert callers[29] is DOORS[1].ask(bearer(tokens[29]), identify=own).caller
    early = DOORS[1].ask(bearer(tokens[0]), identify=own).caller
    assert callers[0] == early
    assert callers[0] is not early
    before = len(remembered)
    refused(DOORS[1].ask(bearer(tokens[0][:-4]), identify=own))
    assert before == len(remembered)
    digests = {*remembered._younger, *remembered._older}
    assert {32} == {len(digest) for digest in digests}


def test_what_is_asked_for_again_stays() -> None:
    """Of those remembered, the ones in use outlive the ones that are not."""
    own = identity(max_tokens=4)
    used, *others = [signed(claims(sub=f"c{number}"), KEY) for number in range(8)]
    first = DOORS[1].ask(bearer(used), identify=own).caller
    for token in others:
        DOORS[1].ask(bearer(token), identify=own)
        assert first is DOORS[1].ask(bearer(used), identify=own).caller


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("token", [TOKEN, "forged", "forged,twice", "x" * 20_000], ids=["good", "bad", "comma", "long"])
def test_the_header_can_be_taken_out(door: Door, strip: bool, token: str) -> None:
    """With `strip` nothing outside of us and nothing below us finds the token, whether it holds or not."""
    seen = door.ask(bearer(token), identify=identity(strip=strip))
    assert strip != (token in repr(seen.request))
    assert seen.app_ran == (token is TOKEN)
    assert not seen.app_ran or strip == ("authorization" not in dict(seen.app_headers))


def test_only_a_token_is_taken_out(door: Door) -> None:
    """What is no token of ours stays where it was."""
    seen = door.ask([("authorization", "Basic YTpi")], identify=identity(strip=True))
    assert "Basic YTpi" == dict(seen.app_headers)["authorization"]


def test_keys_in_another_header_are_read_beside_it(door: Door) -> None:
    """The token says who calls, and a key header of the same request who pays."""
    headers = [*bearer(TOKEN), ("x-openrouter-key", "sk-or-v1-acme")]
    caller = door.ask(headers, identify=identity(strip=True), credentials=HeaderCredentials()).caller
    assert caller is not None
    assert ("acme", "sk-or-v1-acme") == (caller.identifier, caller.credentials[0].api_key.reveal())


def test_a_header_that_was_taken_out_is_gone() -> None:
    """`InboundRequest.remove` takes a header out, also a key that a door has taken; a missing one is no error."""
    scope: dict[str, Any] = {"type": "http", "headers": [(b"x-a", b"1"), (b"X-A", b"2"), (b"x-b", b"3")]}
    known = frozenset({"x-key"})
    request = ASGIRequest(scope, {"x-key": b"k"}, Interest(known, known, frozenset()), None)
    for name in ("X-A", "x-a", "x-key", "x-none"):
        request.remove(name)
        assert request.header(name) is None
    assert [(b"x-b", b"3")] == scope["headers"]


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed(claims(exp=1), KEY), id="expired"),
        pytest.param(TOKEN[:-4], id="truncated"),
        pytest.param(f"{TOKEN},{TOKEN}", id="twice"),
        pytest.param(TOKEN + "\n", id="line-end"),
        pytest.param("x" * 20_000, id="long"),
    ],
)
def test_no_frame_of_an_error_holds_the_token(token: str) -> None:
    """An error reporter that shows the locals of a traceback shows no token and no claim of it."""
    scope: dict[str, Any] = {"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]}
    none: frozenset[str] = frozenset()
    with pytest.raises(RequestRefused) as caught:
        IDENTITY(ASGIRequest(scope, {}, Interest(none, none, none), None))
    assert caught.value.__cause__ is None
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)][1:]
    assert frames
    shown = " ".join(repr(value) for frame in frames for value in frame.f_locals.values())
    assert token[:40] not in shown + str(caught.value)
    assert "acme" not in shown + str(caught.value)


def test_nothing_shows_a_token_or_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a log at debug level nor the object as text, nor pickle, has the secret or the token."""
    own = identity(key=Secret(SECRET), algorithms=["HS256"])
    token = signed(claims(), SECRET.encode(), "HS256")
    with caplog.at_level(logging.DEBUG):
        assert ACME == DOORS[0].ask(bearer(token), identify=own).caller
        refused(DOORS[0].ask(bearer(token[:-3]), identify=own))
    assert token[:30] not in caplog.text
    assert SECRET not in caplog.text + repr(own) + str(own) + repr(own._keys)
    assert f"JWTIdentity(key='****', issuer={NAME!r}, audience={AUDIENCE!r})" == repr(own)
    with pytest.raises(TypeError, match="never serialised"):
        pickle.dumps(own)
    assert "jwt" == own.origin


# --- what is refused at start


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"key": None}, "jwks_url or key"),
        ({"jwks_url": "https://issuer.example/jwks.json"}, "jwks_url or key"),
        ({"issuer": ""}, "issuer"),
        ({"issuer": []}, "issuer"),
        ({"issuer": ["x", None]}, "issuer"),
        ({"audience": 5}, "audience"),
        ({"audience": b"x"}, "audience"),
        ({"claims": {"name": "name"}}, "claims"),
        ({"claims": "sub"}, "claims"),
        ({"claims": {"identifier": "sub", "tenant": "t"}}, "claims"),
        ({"claims": {"identifier": ""}}, "claims: identifier"),
        ({"claims": {"identifier": ()}}, "claims: identifier"),
        ({"claims": {"identifier": ["sub"]}}, "claims: identifier"),
        ({"claims": {"identifier": "sub", "group": ("a", 5)}}, "claims: group"),
        ({"header": "x y"}, "header"),
        ({"leeway": -1}, "leeway"),
        ({"leeway": float("nan")}, "leeway"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
    ],
)
def test_wrong_arguments_are_configuration_errors(options: dict[str, Any], names: str) -> None:
    """What could never work, or would check less than it seems, is refused at start."""
    with pytest.raises(ConfigurationError, match=f"^JWTIdentity[.:] ?.*{names}"):
        identity(**options)


@pytest.mark.parametrize("number", [0, -1, float("inf"), "5", True])
@pytest.mark.parametrize("argument", ["timeout", "refresh_after", "retry_after", "stale_for"])
def test_wrong_bounds_are_configuration_errors(argument: str, number: Any) -> None:
    """A bound is a finite number above 0."""
    with pytest.raises(ConfigurationError, match=f"^JWTIdentity.{argument}: "):
        JWTIdentity(jwks_url="https://issuer.example/", issuer=None, audience=None, **{argument: number})


@pytest.mark.parametrize("missing", ["issuer", "audience"])
def test_the_checks_cannot_be_forgotten(missing: str) -> None:
    """Who wants no check of issuer or audience has to write that out."""
    options: dict[str, Any] = {"key": pem(KEY), "issuer": None, "audience": None}
    del options[missing]
    with pytest.raises(TypeError, match=missing):
        JWTIdentity(**options)


@pytest.mark.parametrize(
    "url",
    [
        None, 5, "", "jwks.json", "https://", "ftp://issuer.example/", "file:///etc/passwd", "http://issuer.example/",
        "https://user:word@issuer.example/", "https://issuer.example/#x", "https://issuer.example:0/",
        "https://issuer.example:x/", "https://[::1/", "http://localhost.example/", "http://127.0.0.1.example/",
        "https://issuer.example/\n", b"https://issuer.example/",
    ],
)  # fmt: skip
def test_keys_come_over_tls_only(url: Any) -> None:
    """Who could change the keys on their way could sign what he likes; only loopback may do without."""
    with pytest.raises(ConfigurationError, match=r"^JWTIdentity[.:]") as caught:
        JWTIdentity(jwks_url=url, issuer=None, audience=None)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://i.example/keys?app=1", "http://localhost:9/", "http://[::1]:9/", "http://127.0.0.1/"]
)
def test_a_url_that_keys_may_come_from(url: str) -> None:
    """Nothing is fetched before the first token comes, and the object shows where from."""
    assert url in repr(JWTIdentity(jwks_url=url, issuer=None, audience=None))


@pytest.mark.parametrize("number", range(len(fenced(PROJECT / "docs" / "jwt.md", "python"))))
def test_a_recipe_of_the_page(number: int) -> None:
    """Each block of docs/jwt.md makes an identity source as it stands, without a network."""
    names: dict[str, Any] = {}
    exec(fenced(PROJECT / "docs" / "jwt.md", "python")[number], names)
    assert any(isinstance(value, JWTIdentity) for value in names.values())


def test_a_key_at_hand_needs_no_wait() -> None:
    """With the keys there the answer is a caller, not something to await."""
    scope: dict[str, Any] = {"type": "http", "headers": [(b"authorization", f"Bearer {TOKEN}".encode())]}
    none: frozenset[str] = frozenset()
    answer = IDENTITY(ASGIRequest(scope, {}, Interest(none, none, none), None))
    assert ACME == answer
    assert not isinstance(answer, cast("Any", Awaitable))


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
import kwai_middleware
try:
    import kwai_middleware.jwt_identity
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_without_the_extra_the_command_is_named(missing: str) -> None:
    """Where the extra is not installed all else works, and this module names the command that installs it."""
    command = [sys.executable, "-B", "-c", WITHOUT, missing]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True)
    assert "pip install 'kwai-middleware[jwt]'" in done.stdout

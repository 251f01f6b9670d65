"""Whatever a client sends: a 400 that echoes nothing, or a model call with exactly what the headers said."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import http_sf
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware.asgi import ASGIMiddleware
from kwai_middleware.credentials import HeaderCredentials
from kwai_middleware.httpx_transport import KwaiTransport
from kwai_middleware.wsgi import WSGIMiddleware
from tests.apps.doors import LOOPBACK, ASGIDoor, Seen, WSGIDoor
from tests.support.callers import GATEWAY, settings

Sent = list[tuple[bytes, bytes]]

KEY_HEADER = "x-openrouter-key"
PARAMETERS = {
    "x-customer-id": ("customer_identifier", 120),
    "x-customer-name": ("name", 4096),
    "x-customer-email": ("email", 4096),
    "x-customer-group": ("group_identifier", 120),
}
READ = {**PARAMETERS, "x-thread-id": ("", 254)}
OURS = [*READ, KEY_HEADER]
MARK = b"5ecre7-5ecre7"
"""In many values, and never in an answer."""

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LOOK_ALIKES = [
    b"X-Customer-Id", b"x_customer_id", b"x-customer-id ", b"x-customer-id\x00", b"x-customer\xe2\x80\x90id",
    b"x-customer-i", b"customer-id", b"X-OpenRouter-Key", b"x-openrouter-key:", b"x-openrouter-\xd0\xbaey",
    b"x-openrouter-key\r\nx-customer-id", b"x-request-id", b"traceparent", b"x-kwai-proxy", b"kwai_middleware",
    b"kwai_middleware.caller", b"", b"-", b"\xff",
]  # fmt: skip

FRAGMENTS = [
    b'"', b"'", b"{", b"}", b"[", b"]", b":", b",", b";", b"=", b"\\", b"/", b"(", b")", b"<", b"%", b"$", b"@", b"?1",
    b'"},"customer_credentials":{"openai":{"api_key":"sk-forged"}},"x":"', b'\\"', b"\\u0022", b"\\ud800", b";w=3",
    b";w=", b";w=1e9", b";weight=0.5", b"\x00", b"\r", b"\n", b"\r\n\r\n", b"\t", b" ", b"\x1b[31m", b"\x7f",
    b"\xc2\x85", b"\xc2\xa0", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"e\xcc\x81",
    b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"\xf0\x9f\x92\xa5", b"Bearer ", b"null", b"NaN", b"acme",
    b"sk-or-v1-", PARENT, MARK,
]  # fmt: skip

PLAIN = st.from_regex(rb"[a-z0-9-]{1,30}", fullmatch=True)
HOSTILE = st.lists(st.sampled_from(FRAGMENTS), max_size=6).map(b"".join)
TOKEN = st.from_regex(rb"[a-z*][a-z0-9:/-]{0,12}", fullmatch=True)
QUOTED = st.one_of(HOSTILE, st.binary(max_size=8)).map(b'"%b"'.__mod__)
WEIGHT = st.sampled_from([b"", b"", b";w=3", b";w=0.5", b";weight=2", b";w=0", b";w", b";w=1;w=2"])
LISTED = st.lists(st.tuples(st.one_of(TOKEN, QUOTED), WEIGHT).map(b"".join), max_size=5).map(b", ".join)
GOOD_LIST = st.lists(
    st.tuples(st.one_of(TOKEN, TOKEN.map(b'"1=%b"'.__mod__)), st.sampled_from([b"", b";w=3", b";weight=0.5"])).map(
        b"".join
    ),
    min_size=1,
    max_size=4,
).map(b",".join)
LONG = st.builds(
    lambda part, length: (part * length)[:length],
    st.sampled_from([b"a", b"a,", b'"', b"\\", b"{", b"a;w=1,", b"\xff", b"e\xcc\x81", MARK]),
    st.sampled_from([119, 120, 121, 254, 255, 4095, 4096, 4097, 100_000]),
)
VALUES = st.one_of(PLAIN, PLAIN, HOSTILE, LISTED, st.binary(max_size=40), LONG)
NAMES = st.one_of(
    st.sampled_from([name.encode() for name in OURS]), st.sampled_from(LOOK_ALIKES), st.binary(max_size=20)
)
SENT = st.one_of(
    st.lists(st.tuples(st.sampled_from([name.encode() for name in OURS]), PLAIN), unique_by=lambda pair: pair[0]),
    st.lists(st.tuples(st.just(b"x-openrouter-key"), GOOD_LIST), min_size=1, max_size=3),
    st.lists(st.tuples(NAMES, VALUES), max_size=8),
)


class CallingApp(Seen):
    """An app that calls a model once for each request, and keeps what went over the wire."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []

    def look(self) -> None:
        super().look()
        assert CLIENT.post(GATEWAY, json={"model": "m"}, extensions={"calls": self.calls}).status_code == 200


def wire(request: httpx.Request) -> httpx.Response:
    """The gateway, which answers everything."""
    request.extensions["calls"].append(request.content)
    return httpx.Response(200, json={})


CLIENT = httpx.Client(
    transport=KwaiTransport(httpx.MockTransport(wire), settings=settings(), deliver=lambda call: None)
)


class ASGI:
    """The headers as they are, as an ASGI server may hand them over."""

    name = "asgi"
    joins = False

    def ask(self, sent: Sent, **options: Any) -> CallingApp:
        """One request with these headers."""
        door, seen = ASGIDoor(), CallingApp()
        seen.request = {**door.scope([], "POST", "/", LOOPBACK), "headers": list(sent)}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.look()

        door.send(ASGIMiddleware(app, **options), seen)
        return seen

    def values(self, sent: Sent, name: str) -> list[bytes]:
        """What was sent in a header of ours."""
        return [value for raw, value in sent if raw.lower() == name.encode()]

    def headers(self, seen: CallingApp) -> str:
        """What is left of the headers."""
        return repr(seen.request["headers"])


class WSGI:
    """The headers as a WSGI server makes an environ of them: one for each name, with commas and underscores."""

    name = "wsgi"
    joins = True

    def ask(self, sent: Sent, **options: Any) -> CallingApp:
        """One request with these headers."""
        door, seen = WSGIDoor(), CallingApp()
        seen.request = door.environ([], "POST", "/", LOOPBACK)
        values: dict[str, list[str]] = {}
        for raw, value in sent:
            values.setdefault(environ_key(raw), []).append(value.decode("latin-1"))
        seen.request |= {key: ",".join(several) for key, several in values.items()}

        def app(environ: Any, start_response: Any) -> list[bytes]:
            seen.look()
            start_response("200 OK", [("Content-Type", "text/plain")])
            return []

        door.send(WSGIMiddleware(app, **options), seen)
        return seen

    def values(self, sent: Sent, name: str) -> list[bytes]:
        """What was sent in a header of ours, as far as WSGI can tell."""
        values = [value for raw, value in sent if environ_key(raw) == environ_key(name.encode())]
        return [b",".join(values)] if values else []

    def headers(self, seen: CallingApp) -> str:
        """What is left of the headers."""
        return repr({key: value for key, value in seen.request.items() if key.startswith("HTTP_")})


def environ_key(raw: bytes) -> str:
    """Where servers put a header."""
    return "HTTP_" + raw.decode("latin-1").upper().replace("-", "_")


Way = ASGI | WSGI
WAYS = pytest.mark.parametrize("way", [ASGI(), WSGI()], ids=lambda way: way.name)
LISTS = pytest.mark.parametrize("lists", [False, True], ids=["one-key", "lists"])


class Refused(Exception):
    """The headers are to be refused."""


def text_of(values: Sequence[bytes], limit: int, *, is_name: bool) -> str | None:
    """What an identity header says, by the rules as the README has them."""
    if not values:
        return None
    if len(values) > 1 or len(values[0]) > 4096:
        raise Refused
    try:
        text = values[0].decode("utf-8").strip(" \t")
    except UnicodeDecodeError:
        raise Refused from None
    if any(unicodedata.category(character) == "Cc" for character in text) or ("," in text and not is_name):
        raise Refused
    if re.search("[\u2028-\u202e\u2066-\u2069]", text):
        raise Refused
    text = text if text.isascii() else unicodedata.normalize("NFC", text).strip()
    if not is_name and re.search("[\u00a0\u00ad\u034f\u061c\u2000-\u206f\ufe00-\ufe0f\ufeff]", text):
        raise Refused
    if len(text) > limit:
        raise Refused
    return text or None


def keys_of(values: Sequence[bytes], *, lists: bool) -> dict[str, float]:
    """The keys that a key header says, with their weights."""
    if not values:
        return {}
    joined = b", ".join(values)
    if (len(values) > 1 and not lists) or len(joined) > 4096:
        raise Refused
    if not lists:
        keys = {joined.strip(b" \t").decode("latin-1"): 1.0}
        if b"," in joined:
            raise Refused
    else:
        try:
            twice: list[Any] = []
            members: Any = http_sf.parse(
                joined.strip(b" \t"), tltype="list", on_duplicate_key=lambda *it: twice.append(it)
            )
        except ValueError:
            raise Refused from None
        if twice:
            raise Refused
        keys = {}
        for member, parameters in members:
            if not isinstance(member, str | http_sf.Token) or str(member) in keys or {*parameters} - {"w", "weight"}:
                raise Refused
            weight = [*parameters.values()] or [1]
            if len(weight) > 1 or isinstance(weight[0], bool) or not re.fullmatch(r"[0-9.]+", str(weight[0])):
                raise Refused
            keys[str(member)] = float(weight[0])
    if not 1 <= len(keys) <= 16 or not all(re.fullmatch(r"[!-~]+", key) and weight > 0 for key, weight in keys.items()):
        raise Refused
    return keys


def expected(way: Way, sent: Sent, *, lists: bool) -> tuple[dict[str, str], str | None, dict[str, float]]:
    """The `customer_params` and the conversation that a call must have, and the keys that may pay for it."""
    texts = {
        name: text_of(way.values(sent, name), limit, is_name=name == "x-customer-name")
        for name, (_, limit) in READ.items()
    }
    parameters = {PARAMETERS[name][0]: text for name, text in texts.items() if text is not None and name in PARAMETERS}
    keys = keys_of(way.values(sent, KEY_HEADER), lists=lists)
    return parameters if "customer_identifier" in parameters else {}, texts["x-thread-id"], keys


def check(way: Way, sent: Sent, *, lists: bool) -> None:
    """Send the headers; hold what comes of it against what they say."""
    seen = way.ask(sent, credentials=HeaderCredentials(lists=lists))
    assert not re.search(r"'x-openrouter-key'|_OPENROUTER_KEY'", way.headers(seen), re.IGNORECASE)
    try:
        parameters, thread, keys = expected(way, sent, lists=lists)
    except Refused:
        assert seen.status == 400
        assert not seen.app_ran
        assert seen.problem["header"] in OURS
        assert seen.problem.keys() == {"type", "title", "status", "detail", "header"}
        assert MARK not in seen.body
        return
    assert seen.app_ran, seen.body
    [call] = seen.calls
    body = json.loads(call, object_pairs_hook=once)
    assert body.pop("model") == "m"
    assert body.pop("customer_params", {}) == parameters
    assert body.pop("thread_identifier", None) == thread
    if keys:
        [key] = [key for key in keys if {"openrouter": {"api_key": key}} == body["customer_credentials"]]
        assert key
        del body["customer_credentials"]
    assert body == {}


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object none of whose members stands there twice."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@WAYS
@LISTS
@given(sent=SENT)
@example(sent=[(b"x-customer-id", b'acme"},"customer_credentials":{}'), (b"x-openrouter-key", b'sk-"}}')])
@example(sent=[(b"x-customer-id", b"acme\r\nx-openrouter-key: sk-forged")])
@example(sent=[(b"x-openrouter-key", b"sk-a"), (b"X-OpenRouter-Key", b"sk-b")])
@example(sent=[(b"x-openrouter-key", b'sk-a;w=3, "1/b:c";w=0.5'), (b"x-customer-id", "m\u00fcller".encode())])
def test_any_headers_are_a_400_or_exactly_what_they_say(way: Way, lists: bool, sent: Sent) -> None:
    """Whatever names and values are sent: a problem document without them, or a call with just what they mean."""
    check(way, sent, lists=lists)


@WAYS
@LISTS
@pytest.mark.parametrize("name", [*OURS, "x-other", "traceparent", "x-request-id"])
@pytest.mark.parametrize("count", [2, 10_000])
@pytest.mark.parametrize("value", [b"", MARK])
def test_a_header_sent_thousands_of_times_is_refused_or_not_ours(
    way: Way, lists: bool, name: str, count: int, value: bytes
) -> None:
    """One of ours is refused, however often it comes; others are the app's affair."""
    check(way, [(b"accept", b"*/*"), *[(name.encode(), value)] * count], lists=lists)


@WAYS
@LISTS
def test_ten_thousand_headers_hide_nothing(way: Way, lists: bool) -> None:
    """Among thousands of others ours are found, and the key is taken out."""
    others = [(b"x-other-%d" % number, MARK) for number in range(10_000)]
    ours = [(b"x-customer-id", b"acme"), (b"x-openrouter-key", b"sk-a")]
    check(way, [*others[:5000], *ours, *others[5000:]], lists=lists)
    many = [(b"x-openrouter-key", b"k%d" % number) for number in range(16)]
    check(way, [pair for pairs in zip(others, many, strict=False) for pair in pairs], lists=lists)


@WAYS
@LISTS
@pytest.mark.parametrize("name", [*OURS, "x-other", "traceparent", "x-request-id"])
@pytest.mark.parametrize(
    "part", [b"a", b"a,", b'"', b"\\", b"(", b"a;w=1,", b"\xff", b"\x00", "e\u0301".encode(), MARK]
)
def test_a_header_of_100_kilobytes_is_refused_or_not_ours(way: Way, lists: bool, name: str, part: bytes) -> None:
    """Whatever it is made of, a value that long is not looked into."""
    check(way, [(name.encode(), (part * 100_000)[:100_000])], lists=lists)
    check(way, [(part * 10_000, b"v"), (b"x-customer-id", b"acme")], lists=lists)

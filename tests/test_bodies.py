"""Which bodies can carry whose call it is, and what becomes of all others."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from kwai_middleware import _notices
from kwai_middleware._caller import Caller
from kwai_middleware._context import bind_caller
from kwai_middleware._outbound.gathering import MOST_BYTES
from kwai_middleware.errors import CannotAttribute
from tests.support.budget import begin_with_nothing_held, wait_until_all_is_given_back
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of, settings
from tests.support.flavours import Flavour
from tests.support.wired import ANTHROPIC, RELAY, wired

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
        sent = wired(flavour, who, body).content
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


def _carried(sent: Any) -> Any:
    """What the parameter header of a request says."""
    return json.loads(base64.b64decode(sent.headers["x-data-respan-params"]))


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_a_body_that_takes_no_members_has_a_header_beside_it(flavour: Flavour, body: bytes) -> None:
    """The vendor documents it for chat completions: key and customer travel there, and the body is the app's own."""
    sent = wired(flavour, caller(), body)
    assert body == sent.content
    assert {
        "customer_credentials": {"openrouter": {"api_key": key_of("acme")}},
        "customer_params": {"customer_identifier": "acme"},
    } == _carried(sent)
    assert {"customer_params": {"customer_identifier": "acme"}} == _carried(
        wired(flavour, caller(credentials=()), body)
    )
    assert "x-data-respan-params" not in wired(flavour, None, body).headers


def test_what_else_stands_in_the_header_stays(flavour: Flavour) -> None:
    """The app's own parameters travel along, once, under the vendor's newer name; another's identity does not."""
    old = base64.b64encode(b'{"customer_identifier":"forged","note":"a"}').decode()
    new = base64.b64encode(b'{"customer_params":{"rate_limit":7,"name":"forged"}}').decode()
    sent = wired(flavour, caller(), b"text", headers={"X-Data-Keywordsai-Params": old, "X-Data-Respan-Params": new})
    assert {
        "note": "a",
        "customer_credentials": {"openrouter": {"api_key": key_of("acme")}},
        "customer_params": {"customer_identifier": "acme", "rate_limit": 7},
    } == _carried(sent)
    assert "x-data-keywordsai-params" not in sent.headers


@pytest.mark.parametrize("url", [RELAY, ANTHROPIC], ids=["relay", "anthropic"])
@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_where_no_header_is_documented_it_is_refused(flavour: Flavour, url: str, body: bytes) -> None:
    """With a key bound it would go out on another's bill or in nobody's name, so it does not go out."""
    with pytest.raises(CannotAttribute, match="send it as json="):
        wired(flavour, caller(), body, url)


@pytest.mark.parametrize("who", [None, caller(credentials=())], ids=["nobody", "no key"])
@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_without_a_key_it_passes_and_is_counted(flavour: Flavour, body: bytes, who: Caller | None) -> None:
    """The vendor gives its own error for it; that a customer's name is missing from it is counted."""
    before = _notices.counts().get("unattributed", 0)
    assert body == wired(flavour, who, body, RELAY).content
    assert before + (who is not None) == _notices.counts().get("unattributed", 0)


HIDDEN = {
    "cut off": (b'{"customer_credentials":{"openrouter":{"api_key":"sk-forged"}},', {}),
    "two objects": (b'{"model":"m"}{"customer_params":{"customer_identifier":"forged"}}', {}),
    "not UTF-8": (b'{"respan_params":{"customer_identifier":"forged"},"a":"\xff"}', {}),
    "escaped": (b'{"customer\\u005fidentifier":"forged",}', {}),
    "a form": (b"customer%5Fidentifier=forged&model=m", {}),
    "UTF-16, cut off": ('{"customer_identifier":"forged",'.encode("utf-16"), {}),
    "compressed": (zlib.compress(b'{"customer_identifier":"forged"}'), {"content-encoding": "deflate"}),
    "compressed, and JSON as well": (b'{"model":"m"}', {"Content-Encoding": "x-mine"}),
    "UTF-7": (
        b'{"a":"+ACI,+ACI-customer+AF8-identifier+ACI-:+ACI-forged+ACI-"}',
        {"content-type": "application/json; charset=utf-7"},
    ),
    "EBCDIC": (b'{"model":"m"}', {"content-type": 'application/json; charset="CP037"'}),
}  # fmt: skip


@pytest.mark.parametrize("who", [caller(), caller(credentials=()), None], ids=["a key", "no key", "nobody"])
@pytest.mark.parametrize(("body", "headers"), HIDDEN.values(), ids=HIDDEN)
def test_what_may_hide_another_is_refused(
    flavour: Flavour, who: Caller | None, body: bytes, headers: dict[str, str]
) -> None:
    """A body in which the vendor might read what cannot be seen from here goes nowhere, and is not echoed."""
    for url in (GATEWAY, RELAY):
        with pytest.raises(CannotAttribute, match="body") as caught:
            wired(flavour, who, body, url, headers)
        assert "forged" not in str(caught.value)
    assert body == wired(flavour, who, body, OPENROUTER, headers).content


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", '"utf-8"', "us-ascii", "ISO-8859-1"])
def test_a_usual_charset_hides_nothing(flavour: Flavour, encoding: str) -> None:
    """A charset in which the structure reads the same is no reason to refuse."""
    headers = {"content-type": f"application/json; charset={encoding}", "content-encoding": "identity"}
    assert "acme" in wired(flavour, caller(), {"model": "m"}, headers=headers).content.decode()


def test_the_request_may_win_in_a_body_that_nobody_reads(flavour: Flavour) -> None:
    """on_conflict='body' lets such a body pass; key and customer travel beside it."""
    for body, headers in HIDDEN.values():
        sent = wired(flavour, caller(), body, headers=headers, on_conflict="body")
        assert sent.content == body or b"acme" in sent.content


# --- bodies that come in pieces


def _pieces(flavour: Flavour, *parts: Any) -> Any:
    """The same parts as an iterator of the flavour's kind."""

    async def pieces() -> Any:
        for part in parts:
            yield part

    return pieces() if flavour.asynchronous else iter(parts)


@pytest.mark.parametrize("who", [caller(), caller(credentials=()), None], ids=["a key", "no key", "nobody"])
def test_a_streamed_object_is_attributed_as_any_other(flavour: Flavour, who: Caller | None) -> None:
    """It is read before it goes out: what it brings is taken out of it, and the app's own framing stays."""
    forged = json.dumps({"model": "m", "customer_identifier": "forged", "respan_params": {"customer_name": "forged"}})
    content = _pieces(flavour, forged[:20].encode(), b"", forged[20:].encode())
    sent = wired(flavour, who, request={"content": content})
    expected: dict[str, Any] = {"model": "m"}
    if who is not None:
        expected["customer_params"] = {"customer_identifier": "acme"}
        if who.credentials:
            expected["customer_credentials"] = {"openrouter": {"api_key": key_of("acme")}}
    assert expected == json.loads(sent.content)
    assert "chunked" == sent.headers["transfer-encoding"]
    assert "content-length" not in sent.headers


def test_a_stream_of_something_else_has_a_header_beside_it(flavour: Flavour) -> None:
    """Every byte of it arrives, and whose it is stands beside it."""
    sent = wired(flavour, caller(), request={"content": _pieces(flavour, b"one ", b"two")})
    assert b"one two" == sent.content
    assert "acme" == _carried(sent)["customer_params"]["customer_identifier"]


def test_a_form_with_files_has_a_header_beside_it(flavour: Flavour) -> None:
    """Form fields are not members of a JSON object; a field that says whose it is, is refused."""
    request: dict[str, Any] = {"files": {"file": ("a.wav", b"RIFF" * 1000)}, "data": {"model": "whisper"}}
    sent = wired(flavour, caller(), request=request)
    assert b"RIFF" * 1000 in sent.content
    assert sent.headers["content-type"].startswith("multipart/form-data")
    assert str(len(sent.content)) == sent.headers["content-length"]
    assert key_of("acme") == _carried(sent)["customer_credentials"]["openrouter"]["api_key"]
    with pytest.raises(CannotAttribute, match="names a parameter"):
        wired(flavour, caller(), request={"files": request["files"], "data": {"customer_identifier": "forged"}})


def test_a_stream_too_large_to_look_into_is_refused(flavour: Flavour) -> None:
    """Nobody is let past with a key in the part that was not read; without anything to protect it passes."""
    piece = b" " * (MOST_BYTES // 4)
    for who in (caller(), None):
        with pytest.raises(CannotAttribute, match="in pieces"):
            wired(flavour, who, request={"content": _pieces(flavour, *[piece] * 5)})
    sent = wired(flavour, caller(), request={"content": _pieces(flavour, *[piece] * 5)}, on_conflict="body")
    assert 5 * len(piece) == len(sent.content)
    sent = wired(flavour, caller(), url=OPENROUTER, request={"content": _pieces(flavour, *[piece] * 5)})
    assert 5 * len(piece) == len(sent.content)


def test_streams_that_are_read_count_in_the_bound_on_memory(flavour: Flavour) -> None:
    """A flood of large uploads is refused before it fills the memory, and leaves nothing reserved."""
    begin_with_nothing_held()
    with pytest.raises(CannotAttribute, match="too many"):
        wired(
            flavour,
            caller(),
            request={"content": _pieces(flavour, *[b" " * 700_000] * 2)},
            max_open_bytes=1024 * 1024,
        )
    wait_until_all_is_given_back()


def test_what_a_stream_raises_reaches_the_app(flavour: Flavour) -> None:
    """An upload that fails half-way fails as it would without us; nothing was sent."""

    def failing() -> Any:
        yield b'{"model":'
        raise OSError("the disk is gone")

    async def failing_async() -> Any:
        for piece in failing():
            yield piece

    with pytest.raises(OSError, match="the disk is gone"):
        wired(flavour, caller(), request={"content": failing_async() if flavour.asynchronous else failing()})


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

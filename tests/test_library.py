"""What an HTTP library keeps to itself is used where it is as we know it, and is not needed anywhere."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from kwai_middleware._context import bind_caller
from kwai_middleware._outbound.library import entries_by, parsed_by
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of, settings
from tests.support.flavours import Flavour

BODY = b'{"model":"m","messages":[]}'


def _client(flavour: Flavour, sent: list[Any], **parts: Any) -> Any:
    """A client of the door, over a library of which some parts are other ones."""

    def handler(request: Any) -> Any:
        body = request.content
        assert str(len(body)) == request.headers["content-length"]
        sent.append((sorted(request.headers.multi_items()), body))
        return flavour.library.Response(200, json={})

    library = dataclasses.replace(flavour.transport_class.library, **parts)
    transport_class = type("KwaiTransport", (flavour.transport_class,), {"library": library})
    transport = transport_class(flavour.library.MockTransport(handler), settings=settings(), deliver=lambda call: None)
    return flavour.plain_client_class(transport=transport)


@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
def test_a_library_that_keeps_its_parts_otherwise_sends_the_same(flavour: Flavour, url: str) -> None:
    """Without the tuple of a URL's parts and the list of headers, the same bytes and headers go out."""
    sent: list[Any] = []
    headers = {"authorization": "Bearer app", "content-type": "application/json"}
    with bind_caller(caller()):
        for parts in ({}, {"entries": None, "parsed": lambda url: None}):
            client = _client(flavour, sent, **parts)
            for _ in range(2):
                assert 200 == flavour.post(client, url, content=BODY, headers=headers).status_code
            flavour.close(client)
    assert 4 == len(sent)
    assert [sent[0]] * 4 == sent
    assert key_of("acme") in str(sent[0])


def test_the_libraries_parts_are_as_we_know_them(flavour: Flavour) -> None:
    """The fast way is taken with the versions that are installed."""
    library = flavour.transport_class.library
    url = flavour.library.URL("https://one.example/path?a=b")
    headers = flavour.library.Headers([("Content-Type", "text/plain")])
    assert "one.example" in library.parsed(url)
    assert [(b"Content-Type", b"content-type", b"text/plain")] == library.entries(headers)


def test_a_url_without_known_parts_has_none() -> None:
    """Another version may have no such attribute, one that is no tuple, or one that does not tell URLs apart."""
    for parts in ({}, {"_uri_reference": ["a", "list"]}, {"_uri_reference": ("the", "same")}):
        assert parsed_by(lambda url, parts=parts: SimpleNamespace(**parts))("https://one.example") is None


def test_headers_without_a_known_list_have_none() -> None:
    """Another version may keep headers in something else or something beside the list, or share it with copies."""

    class Shared:
        """A copy is the same list."""

        def __init__(self) -> None:
            self._list = [(b"A-b", b"a-b", b"c"), (b"D", b"d", b"e")]

        @property
        def raw(self) -> list[tuple[bytes, bytes]]:
            return [(name, value) for name, _, value in self._list]

        def __getitem__(self, name: str) -> str:
            return self._list[0][2].decode()

    class Beside:
        """What is found is not in the list."""

        def __init__(self) -> None:
            self.raw = [(b"A-b", b"c"), (b"D", b"e")]
            self._list = [(b"A-b", b"a-b", b"c"), (b"D", b"d", b"e")]

        def __getitem__(self, name: str) -> str:
            return "c"

    for headers in (SimpleNamespace(), SimpleNamespace(_list=()), SimpleNamespace(_list=[]), Beside(), Shared()):
        assert entries_by(lambda pairs, headers=headers: headers) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","customer_params":{"customer_identifier":"other"}}',
        b'{"model":"m","respan_params":{"customer_credentials":{"openrouter":{"api_key":"sk-other"}}}}',
        b"{}",
        b'\xef\xbb\xbf{"model":"m"}',
    ],
    ids=["a customer", "a key", "empty", "with a mark"],
)
def test_only_what_brings_nothing_of_its_own_takes_the_short_way(flavour: Flavour, body: bytes) -> None:
    """Between calls that do take it, one that names somebody else, or has no member, says what it has to."""
    sent: list[Any] = []
    client = _client(flavour, sent)
    headers = {"content-type": "application/json"}
    with bind_caller(caller()):
        for each in (BODY, body, BODY):
            flavour.post(client, GATEWAY, content=each, headers=headers)
    flavour.close(client)
    for each, (_, out) in zip((BODY, body, BODY), sent, strict=True):
        said = json.loads(out)
        assert "acme" == said.pop("customer_params")["customer_identifier"]
        assert {"openrouter": {"api_key": key_of("acme")}} == said.pop("customer_credentials")
        apps_own = json.loads(each.decode("utf-8-sig"))
        for name in ("customer_params", "respan_params"):
            apps_own.pop(name, None)
        assert apps_own == said


def test_what_stands_in_a_query_is_not_kept(flavour: Flavour) -> None:
    """A URL may hold a secret; the call is touched each time all the same."""
    sent: list[Any] = []
    client = _client(flavour, sent)
    with bind_caller(caller()):
        for _ in range(2):
            flavour.post(client, f"{OPENROUTER}?key=secret", content=BODY)
    assert ["Bearer " + key_of("acme")] * 2 == [dict(headers)["authorization"] for headers, _ in sent]
    assert {} == client._transport._endpoints
    flavour.close(client)


def test_only_so_many_urls_are_kept(flavour: Flavour) -> None:
    """There is no end of URLs that name one endpoint, and each of them is touched."""
    sent: list[Any] = []
    client = _client(flavour, sent)
    with bind_caller(caller()):
        for number in range(110):
            flavour.post(client, f"{OPENROUTER}#{number}", content=BODY)
    assert 100 == len(client._transport._endpoints)
    assert {"Bearer " + key_of("acme")} == {dict(headers)["authorization"] for headers, _ in sent}
    flavour.close(client)

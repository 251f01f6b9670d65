"""`openrouter.validate_key` and its twin: what OpenRouter says of a key, what else may answer, and who sees the key."""

from __future__ import annotations

import asyncio
import datetime
import gc
import gzip
import json
import logging
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from kwai_middleware import BlockingCall, ConfigurationError, KwaiError, Secret, Settings, openrouter
from kwai_middleware.openrouter import InvalidKey, KeyInfo, OpenRouterUnavailable
from kwai_middleware.sandbox import Sandbox
from tests.support.exposure import exposures
from tests.support.logs_api import answer
from tests.support.processes import DEADLINE
from tests.support.raw_server import Connection, raw_server

pytest_plugins = ["kwai_middleware.testing"]

KEY = "sk-or-v1-acme-0123456789abcdef"
Validate = Callable[..., KeyInfo]
DATA: dict[str, Any] = {"label": "sk-or-v1-acm...def", "usage": 1.5, "limit": 10.0}


def asyncio_validate(key: Any, **options: Any) -> KeyInfo:
    return asyncio.run(openrouter.avalidate_key(key, **options))


def trio_validate(key: Any, **options: Any) -> KeyInfo:
    async def run() -> KeyInfo:
        return await openrouter.avalidate_key(key, **options)

    return trio.run(run)


@pytest.fixture(params=[openrouter.validate_key, asyncio_validate, trio_validate], ids=["sync", "asyncio", "trio"])
def validate(request: pytest.FixtureRequest) -> Validate:
    """The function in each of its three worlds."""
    found: Validate = request.param
    return found


class Vendor:
    """A vendor on a socket that answers every request with the same bytes."""

    def __init__(self) -> None:
        self.answer = b""
        self.heads: list[bytes] = []
        self.arrived = threading.Event()
        self.url = ""

    @property
    def settings(self) -> Settings:
        return Settings(openrouter_base_url=f"{self.url}/api/v1")

    def serve(self, connection: Connection) -> None:
        self.heads.append(connection.request()[0])
        self.arrived.set()
        connection.send(self.answer)
        if not self.answer:
            connection.wait_until_closed()


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    """A vendor whose answer the test decides; without one it is silent."""
    vendor = Vendor()
    with raw_server(vendor.serve) as server:
        vendor.url = server.url
        yield vendor


def described(**data: object) -> bytes:
    return answer(200, json.dumps({"data": DATA | data}).encode())


def test_a_good_key(kwai_sandbox: Sandbox, validate: Validate) -> None:
    """What OpenRouter tells of a key is told, with an aware time; a key that pays meets no objection."""
    kwai_sandbox.register_key(
        KEY, label="Acme", limit=20, usage=7.5, limit_reset="weekly", expires_at="2100-01-01T00:00:00Z"
    )

    info = validate(Secret(KEY), settings=kwai_sandbox.settings())

    assert (Secret(KEY), "Acme") == (info.key, info.label)
    assert (20.0, 12.5, "weekly", 7.5) == (info.limit, info.remaining, info.limit_reset, info.usage)
    assert datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC) == info.expires_at
    assert (False, False) == (info.is_free_tier, info.is_management_key)
    assert None is info.objection


def test_a_key_without_bounds(kwai_sandbox: Sandbox, validate: Validate) -> None:
    """A key as OpenRouter makes it by itself has no limit and no end; blanks around a pasted one do not matter."""
    info = validate(f" {KEY}\n", settings=kwai_sandbox.settings())

    assert Secret(KEY) == info.key
    assert [None] * 5 == [info.limit, info.remaining, info.limit_reset, info.expires_at, info.objection]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"is_management_key": True}, "management"),
        ({"is_provisioning_key": True}, "management"),
        ({"limit_remaining": 0}, "spent"),
        ({"limit_remaining": 5, "effective_budget": {"remaining_usd": -0.5}}, "spent"),
        ({"expires_at": "2020-01-01T00:00:00.000Z"}, "expired"),
        ({"expires_at": "2020-01-01T00:00:00"}, "expired"),
    ],
)
def test_a_key_that_pays_for_nothing(vendor: Vendor, data: dict[str, object], words: str) -> None:
    """A key that OpenRouter accepts but that calls no model is met by an objection that says why and where to go."""
    vendor.answer = described(**data)

    objection = openrouter.validate_key(KEY, settings=vendor.settings).objection

    assert objection is not None
    assert words in objection
    assert "https://openrouter.ai/settings/keys" in objection


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key(vendor: Vendor, validate: Validate, status: int) -> None:
    """A key that OpenRouter refuses is invalid, with what to do about it."""
    vendor.answer = answer(status, b'{"error": {"code": 401, "message": "User not found."}}')

    with pytest.raises(InvalidKey, match=r"https://openrouter\.ai/settings/keys") as raised:
        validate(KEY, settings=vendor.settings)

    assert isinstance(raised.value, KwaiError | ValueError)
    assert [] == exposures(raised.value, KEY, below="validate_key") + exposures(
        raised.value, KEY, below="avalidate_key"
    )


IMPOSSIBLE = ["", "  ", "sk-or v1", "sk-or-v1-ä", "k" * 5000, Secret("k" * 5000), None, 7, b"sk-or-v1"]


@pytest.mark.parametrize("impossible", IMPOSSIBLE, ids=range(len(IMPOSSIBLE)))
def test_what_cannot_be_a_key(vendor: Vendor, validate: Validate, impossible: Any) -> None:
    """It is refused before anything is sent, and neither text nor frames hold it."""
    with pytest.raises(InvalidKey, match="no API key") as raised:
        validate(impossible, settings=vendor.settings)

    assert [] == vendor.heads
    assert None is raised.value.__context__
    if isinstance(impossible, str) and impossible.strip():
        for name in ("validate_key", "avalidate_key"):
            assert [] == exposures(raised.value, impossible, below=name)


def unfinished(body: bytes, length: int) -> bytes:
    """An answer that promises more than it brings."""
    return answer(200, body).replace(b"content-length: %d" % len(body), b"content-length: %d" % length)


ODD: dict[str, tuple[bytes, str]] = {
    "HTML": (answer(200, b"<html>"), "base_url"),
    "no data": (answer(200, b"{}"), "base_url"),
    "other types": (described(limit="much"), "base_url"),
    "no Unicode": (answer(200, b'{"data": "\xff"}'), "base_url"),
    "too deep": (answer(200, b"[" * 60_000), "base_url"),
    "without end": (unfinished(b'{"data": "' + b"x" * 70_000, 999_999_999), "base_url"),
    "a bomb": (answer(200, gzip.compress(b" " * 50_000_000), content_encoding="gzip"), "base_url"),
    "redirect": (answer(302, location="/elsewhere"), "elsewhere.*302.*base_url"),
    "not found": (answer(404), "404.*base_url"),
    "out of order": (answer(502, b"<html>"), "502.*later"),
    "cut": (unfinished(b'{"data"', 50), "RemoteProtocolError"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "RemoteProtocolError"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_no_answer(vendor: Vendor, validate: Validate, case: str) -> None:
    """An answer that says nothing of the key means that nothing is known of it; no redirect is followed."""
    vendor.answer, words = ODD[case]

    with pytest.raises(OpenRouterUnavailable, match=words) as raised:
        validate(KEY, settings=vendor.settings, timeout=DEADLINE)

    assert 1 == len(vendor.heads)
    for name in ("validate_key", "avalidate_key"):
        assert [] == exposures(raised.value, KEY, below=name)


def test_too_many_requests(kwai_sandbox: Sandbox, validate: Validate) -> None:
    """Where OpenRouter asks for patience, the error says for how long."""
    with pytest.raises(OpenRouterUnavailable, match="429") as raised:
        validate(f"{KEY}-slow", settings=kwai_sandbox.settings())

    assert 1.0 == raised.value.retry_after


def test_silence(vendor: Vendor, validate: Validate) -> None:
    """A vendor that says nothing is given up after the time-out, and no frame keeps the key."""
    with pytest.raises(OpenRouterUnavailable, match=r"within 0\.2 s") as raised:
        validate(KEY, settings=vendor.settings, timeout=0.2)

    assert None is raised.value.retry_after
    for name in ("validate_key", "avalidate_key"):
        assert [] == exposures(raised.value, KEY, below=name)


def test_a_trickle(validate: Validate) -> None:
    """The time-out is for all of it: an answer that comes byte by byte does not go on for ever."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(unfinished(b"", 60_000))
        while True:
            connection.send(b" ")
            threading.Event().wait(0.02)

    with raw_server(serve) as server, pytest.raises(OpenRouterUnavailable, match="within"):
        validate(KEY, settings=Settings(openrouter_base_url=server.url), timeout=0.3)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_there(vendor: Vendor, validate: Validate, scheme: str) -> None:
    """What the network says before anything is sent is told: it names what is wrong."""
    settings = Settings(openrouter_base_url=f"{scheme}://127.0.0.1:1")

    with pytest.raises(OpenRouterUnavailable, match=r"cannot be reached \(ConnectError: "):
        validate(KEY, settings=settings)


def test_certificates_that_are_not_there(validate: Validate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose certificates cannot be read reaches nobody, and says so as any other trouble."""
    monkeypatch.setenv("SSL_CERT_FILE", "no-such-file.pem")

    with pytest.raises(OpenRouterUnavailable, match="FileNotFoundError"):
        validate(KEY, settings=Settings(openrouter_base_url="https://127.0.0.1:1"))


def test_the_vendor_must_prove_itself(validate: Validate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key goes only to whom the machine's certificate authorities vouch for."""
    authority, heads = trustme.CA(), []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))

    def serve(connection: Connection) -> None:
        with context.wrap_socket(connection.sock, server_side=True) as encrypted:
            heads.append(Connection(encrypted).request())
            encrypted.sendall(described())

    with raw_server(serve) as server:
        settings = Settings(openrouter_base_url=server.url.replace("http:", "https:"))
        with pytest.raises(OpenRouterUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            validate(KEY, settings=settings)
        assert [] == heads
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        assert 10.0 == validate(KEY, settings=settings).limit


def test_no_proxy_sees_a_key_in_clear(vendor: Vendor, validate: Validate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not encrypted goes straight to this machine's own port, whatever the environment says of proxies."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    vendor.answer = described()

    assert 10.0 == validate(KEY, settings=vendor.settings).limit


def test_the_environment_says_where(vendor: Vendor, validate: Validate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings those of the environment hold; the key travels in the header, and only there."""
    monkeypatch.setenv("OPENROUTER_BASE_URL", f"{vendor.url}/api/v1/")
    vendor.answer = described()
    validate(KEY)

    [head] = vendor.heads
    assert b"GET /api/v1/key HTTP/1.1" == head.split(b"\r\n")[0]
    assert 1 == head.count(KEY.encode())
    assert f"authorization: bearer {KEY}".encode() in head.lower()


@pytest.mark.parametrize("timeout", [0, -1, True, "1", None, float("nan"), 601])
def test_a_timeout_that_is_none(vendor: Vendor, validate: Validate, timeout: Any) -> None:
    """A time-out that means nothing is refused, rather than to wait for ever."""
    with pytest.raises(ConfigurationError, match="timeout"):
        validate(KEY, settings=vendor.settings, timeout=timeout)


def test_the_blocking_one_on_a_loop(vendor: Vendor) -> None:
    """On an event loop the blocking function refuses, and names its twin."""

    async def on_the_loop() -> None:
        with pytest.raises(BlockingCall, match="await avalidate_key"):
            openrouter.validate_key(KEY, settings=vendor.settings)

    asyncio.run(on_the_loop())
    assert [] == vendor.heads


def test_the_loop_goes_on(vendor: Vendor) -> None:
    """While OpenRouter is silent other tasks run; one that is cancelled leaves without the key in its frames."""

    async def cancelled() -> BaseException | None:
        asking = asyncio.create_task(openrouter.avalidate_key(KEY, settings=vendor.settings, timeout=DEADLINE))
        assert await asyncio.to_thread(vendor.arrived.wait, DEADLINE)
        asking.cancel()
        try:
            await asking
        except asyncio.CancelledError as error:
            return error
        return None

    left = asyncio.run(cancelled())
    assert left is not None
    assert [] == exposures(left, KEY, below="avalidate_key")


def test_an_interrupt(vendor: Vendor) -> None:
    """Somebody's Ctrl-C leaves without the key in its frames."""

    def interrupt() -> None:
        assert vendor.arrived.wait(DEADLINE)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt) as raised:
        openrouter.validate_key(KEY, settings=vendor.settings, timeout=DEADLINE)
    interrupting.join()

    assert [] == exposures(raised.value, KEY, below="validate_key")


def test_nothing_is_logged(kwai_sandbox: Sandbox, validate: Validate, caplog: pytest.LogCaptureFixture) -> None:
    """All loggers together, at debug level, show no more of the key than the label that OpenRouter gave it."""
    caplog.set_level(logging.DEBUG)
    info = validate(KEY, settings=kwai_sandbox.settings())
    gc.collect()

    assert "httpx" in {record.name for record in caplog.records}
    assert "httpcore.http11" in {record.name for record in caplog.records}
    assert KEY not in caplog.text
    assert KEY not in repr([vars(record) for record in caplog.records])
    assert "sk-or" not in repr(info)


def test_a_vendor_that_echoes_the_key(vendor: Vendor) -> None:
    """Where OpenRouter's words hold the key they are left out; what is kept of the label is not in the repr."""
    vendor.answer = described(label=f"my {KEY}", limit_reset=KEY)
    info = openrouter.validate_key(KEY, settings=vendor.settings)
    assert ("", None) == (info.label, info.limit_reset)

    vendor.answer = described()
    info = openrouter.validate_key(KEY, settings=vendor.settings)
    assert DATA["label"] == info.label
    assert DATA["label"] not in repr(info)

"""`doctor`: settings, spool and vendor; nothing is shown that is a key; and what it says of middleware is so."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

import kwai_middleware as kwai
from kwai_middleware._cli.doctor_spool import check_spool
from kwai_middleware._delivery.disk import existing
from kwai_middleware.sandbox import Sandbox, sandbox
from kwai_middleware.testing import Canary
from tests.support.doctor import FASTAPI, GUARDED, Told, doctor, doctor_command
from tests.support.logs_api import answer
from tests.support.raw_server import Connection, raw_server
from tests.support.spool_command import append, record, reject

APP = FASTAPI + GUARDED


@pytest.fixture(scope="module")
def vendor() -> Iterator[Sandbox]:
    """The vendor of this file."""
    with sandbox() as running:
        yield running


@pytest.mark.parametrize(
    ("name", "severity", "variable", "wrong", "right"),
    [
        ("byok-off", "note", "KWAI_BYOK", "off", "prefer"),
        ("body-wins", "warning", "KWAI_ON_CONFLICT", "body", "context"),
        ("body-credentials", "note", "KWAI_BODY_CREDENTIALS", "allow", "remove"),
        ("capture", "note", "KWAI_CAPTURE", "metadata", "full"),
        ("capture", "note", "KWAI_CAPTURE", "none", "full"),
        ("setting", "error", "KWAI_BYOK", "always", "prefer"),
        ("setting", "error", "KWAI_MASK", "no.such:function", ""),
        ("no-api-key", "warning", "KEYWORDSAI_API_KEY", "", "app-key"),
        ("in-memory", "note", "KWAI_SPOOL", "memory:", "auto"),
        ("not-on-disk", "warning", "KWAI_SPOOL", "sqlite:///dev/null/spool.db", "auto"),
    ],
)
def test_settings(tmp_path: Path, name: str, severity: str, variable: str, wrong: str, right: str) -> None:
    """A setting that surprises, or is wrong, is a finding, never a traceback; gone with the value that is advised."""
    before, after = doctor(tmp_path, APP, **{variable: wrong}), doctor(tmp_path, APP, **{variable: right})

    finding = before.finding(name)
    assert severity == finding["severity"]
    assert variable in finding["change"]
    assert "Traceback" not in before.errors
    assert name not in after.names


def of_vendor(folder: Path, url: str, key: str = "app-key") -> Told:
    """Ask this vendor."""
    return doctor(folder, APP, KEYWORDSAI_BASE_URL=url, KEYWORDSAI_API_KEY=key, KWAI_REQUEST_TIMEOUT="0.5")


def test_the_vendor_is_asked_about_the_key_and_gets_no_record(tmp_path: Path, vendor: Sandbox) -> None:
    """A key that the vendor takes is fine, one that it refuses is an error, and neither request leaves a log."""
    good = of_vendor(tmp_path, vendor.gateway_url)
    bad = of_vendor(tmp_path, vendor.gateway_url, "app-key-dead")

    assert "takes the API key" in good.output
    assert "error" == bad.finding("api-key-refused")["severity"]
    assert "HTTP 401" in bad.finding("api-key-refused")["what"]
    assert "app-key-dead" not in bad.output
    assert [] == vendor.logs()


@pytest.mark.parametrize(
    ("status", "name", "severity"),
    [(200, "not-the-vendor", "warning"), (429, "vendor-busy", "note"), (500, "vendor-away", "warning")],
)
def test_other_answers_of_the_vendor(tmp_path: Path, status: int, name: str, severity: str) -> None:
    """What answers, but not as the vendor does, is told with what it said."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(answer(status))

    with raw_server(serve) as server:
        told = of_vendor(tmp_path, f"{server.url}/api")

    assert severity == told.finding(name)["severity"]


def test_a_vendor_that_is_away_is_a_warning_with_the_reason(tmp_path: Path) -> None:
    """Nobody there: the reason is named, and `--offline` asks nobody."""
    told = of_vendor(tmp_path, "http://127.0.0.1:9/api")
    offline = doctor(tmp_path, APP, "--offline", KEYWORDSAI_BASE_URL="http://127.0.0.1:9/api")

    assert "warning" == told.finding("vendor-away")["severity"]
    assert "ConnectionRefusedError" in told.finding("vendor-away")["what"]
    assert "vendor-away" not in offline.names


def of_spool(folder: Path, place: str, **more: str) -> Told:
    """Look at this spool."""
    return doctor(folder, APP, KWAI_SPOOL=place, **more)


def test_records_that_wait_or_were_refused_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `spool status` would complain of is a warning with the command that helps; nothing else is."""
    path = tmp_path / "x.db"
    append(path, record("one"))
    fresh = of_spool(tmp_path, f"sqlite://{path}")
    reject(path, 1)
    refused = of_spool(tmp_path, f"sqlite://{path}")

    assert "records-rejected" not in fresh.names
    assert "spool rejected" in refused.finding("records-rejected")["change"]


def test_records_that_wait_for_hours_are_told(tmp_path: Path) -> None:
    """A record that nobody ships is a warning after an hour."""
    path = tmp_path / "x.db"
    append(path, record("one"), clock=lambda: 1_700_000_000.0)
    told = of_spool(tmp_path, f"sqlite://{path}")

    assert "spool drain" in told.finding("records-wait")["change"]


@pytest.mark.parametrize("key", ["app-key", ""])
def test_nothing_is_made_by_looking(tmp_path: Path, key: str) -> None:
    """A folder that is not there yet can be made, and is not; one without a file stays without one."""
    told = of_spool(tmp_path, f"sqlite://{tmp_path}/new/spool/", KEYWORDSAI_API_KEY=key)
    file = of_spool(tmp_path, f"sqlite://{tmp_path}/other/spool.db", KEYWORDSAI_API_KEY=key)

    assert "can be made" in told.output
    assert "can be made" in file.output
    assert [] == [each.name for each in tmp_path.iterdir() if each.suffix != ".py" and each.name != "__pycache__"]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """Rights, links, folders that others can write, a file in the folder's place, and no spool: each is said."""
    path = tmp_path / "x.db"
    append(path, record("one"))
    path.chmod(0o644)
    loose = of_spool(tmp_path, f"sqlite://{path}")
    path.chmod(0o600)
    tight = of_spool(tmp_path, f"sqlite://{path}")
    (tmp_path / "link.db").symlink_to(path)
    link = of_spool(tmp_path, f"sqlite://{tmp_path}/link.db")
    (tmp_path / "empty.db").touch(0o600)
    empty = of_spool(tmp_path, f"sqlite://{tmp_path}/empty.db")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    others = of_spool(tmp_path, f"sqlite://{shared}/x.db")
    in_place = of_spool(tmp_path, f"sqlite://{path}/more/x.db")

    assert f"chmod 600 {path}" == loose.finding("loose-rights")["change"]
    assert set() == {"loose-rights", "not-on-disk"} & (tight.names | empty.names)
    assert "is a link" in link.finding("not-on-disk")["what"]
    assert "can be written by other users" in others.finding("not-on-disk")["what"]
    assert "is no folder" in in_place.finding("not-on-disk")["what"]


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_disks(tmp_path: Path) -> None:
    """A disk of the network, and one with less room than records may take, are told."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 0:1 / {tmp_path} rw - nfs4 host:/ rw\n")
    place = f"sqlite://{tmp_path}/x.db"
    [network] = check_spool(kwai.Settings(spool=place), str(mounts))
    small = [each.name for each in check_spool(kwai.Settings(spool=place, max_spool_bytes=1 << 40))]
    [full, _] = check_spool(kwai.Settings(spool=place), least=1 << 60)
    with as_nobody():
        [nowhere] = check_spool(kwai.Settings(spool="sqlite:///nowhere/x.db"))

    assert "lies on a network's disk (nfs4)" in network.what
    assert "disk-small" in small
    assert "disk-full" == full.name
    assert "/ cannot be written" in nowhere.what
    assert existing.found_in(str(tmp_path / "x.db")) == []


LEAKY = """
import os
key = os.environ["UPSTREAM_API_KEY"]
word = os.environ["WORD"]
raise RuntimeError(f"cannot reach the vault with {key} at postgres://shop:pass-of-shop@db/shop, nor {word}")
"""


def test_no_key_is_shown(tmp_path: Path, vendor: Sandbox) -> None:
    """An app whose exception quotes keys, a proxy's secret in its code, a vendor that echoes: none of it is printed."""
    canary = Canary()
    key = canary.key.reveal()
    quoting = doctor(tmp_path, LEAKY, UPSTREAM_API_KEY="plain-looking-value", WORD=key)
    phrase = doctor(tmp_path, LEAKY, UPSTREAM_API_KEY="correct horse battery", WORD="")
    in_code = doctor(tmp_path, FASTAPI + GUARDED.replace('"s" * 32', repr(key)), "--", "x" + key, KWAI_BYOK=key)

    def echo(connection: Connection) -> None:
        connection.request()
        connection.send(answer(401, b'{"detail": "no such key: %s"}' % key.encode()))

    with raw_server(echo) as server:
        echoing = of_vendor(tmp_path, f"{server.url}/api", key)
    for told in (quoting, in_code, echoing):
        canary.check("output", told.output)
        canary.check("errors", told.errors)

    assert [] == canary.sightings
    assert "cannot reach the vault" in quoting.output
    assert "correct horse" not in phrase.output
    assert set() == {each for each in ("plain-looking-value", "pass-of-shop") if each in quoting.output}
    assert "api-key-refused" in echoing.names
    assert "setting" in in_code.names


def test_as_a_user_starts_it(tmp_path: Path, vendor: Sandbox) -> None:
    """The whole command: the app of the folder one is in, what its server is started with behind `--`, exit codes."""
    (tmp_path / "shop.py").write_text(APP)
    environment = {"KEYWORDSAI_API_KEY": "app-key", "KEYWORDSAI_BASE_URL": vendor.gateway_url}
    command = ("--", "python", "-m", "uvicorn", "shop:app", "--no-proxy-headers", "--loop", "uvloop")
    good = doctor_command(tmp_path, "shop:app", *command, **environment)
    bad = doctor_command(
        tmp_path, "shop:app", "--json", "--", "uvicorn", "shop:app", "--lifespan", "off", **environment
    )
    usage = doctor_command(tmp_path, "shop")

    assert (0, 1, 2) == (good.code, bad.code, usage.code)
    assert good.output.endswith("0 errors, 0 warnings, 0 notes.\n")
    assert {"lifespan-off"} == bad.names - {"context-kept"}
    assert "" == good.errors + bad.errors


def ask(app: ASGIApp, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send a request from a local proxy straight into an app."""
    sent: list[Any] = []
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: Scope = {"type": "http", "method": method, "path": "/", "headers": raw, "client": ("127.0.0.1", 5000)}

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(_served(app, scope, receive, send))
    head = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], head, b"".join(each.get("body", b"") for each in sent[1:])


async def _served(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer who is bound, and what was asked."""
    caller = kwai.current_caller()
    body = f"{scope['method']} {None if caller is None else caller.identifier}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class MethodOverrideMiddleware:
    """As they are."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the method from a header."""
        scope["method"] = dict(scope["headers"]).get(b"x-http-method-override", scope["method"].encode()).decode()
        await self.app(scope, receive, send)


FROM_A_PROXY = {"x_customer_id": "acme", "x_forwarded_for": "203.0.113.9"}
PREFLIGHT = {"origin": "https://x", "access_control_request_method": "POST", "x_http_method_override": "POST"}


def test_what_is_said_of_order_is_so() -> None:
    """Proxy headers outside hide the proxy; CORS inside leaves a 401 bare; a method override inside lets all pass."""
    hidden = ask(ProxyHeadersMiddleware(kwai.ASGIMiddleware(who)), **FROM_A_PROXY)  # type: ignore[arg-type]
    seen = ask(kwai.ASGIMiddleware(ProxyHeadersMiddleware(who)), **FROM_A_PROXY)  # type: ignore[arg-type]
    bare = ask(kwai.ASGIMiddleware(CORSMiddleware(who, allow_origins=["*"]), required=True), origin="https://x")
    allowed = ask(CORSMiddleware(kwai.ASGIMiddleware(who, required=True), allow_origins=["*"]), origin="https://x")
    passed = ask(kwai.ASGIMiddleware(MethodOverrideMiddleware(who), required=True), "OPTIONS", **PREFLIGHT)
    stopped = ask(MethodOverrideMiddleware(kwai.ASGIMiddleware(who, required=True)), "OPTIONS", **PREFLIGHT)
    inner = kwai.ASGIMiddleware(kwai.ASGIMiddleware(who, required=True))
    override = kwai.ASGIMiddleware(kwai.ASGIMiddleware(who, required=True, override=True))

    assert (b"GET None", b"GET acme") == (hidden[2], seen[2])
    assert (401, False) == (bare[0], "access-control-allow-origin" in bare[1])
    assert (401, True) == (allowed[0], "access-control-allow-origin" in allowed[1])
    assert (200, b"POST None") == (passed[0], passed[2])
    assert 401 == stopped[0]
    assert (200, 401) == (ask(inner)[0], ask(override)[0])

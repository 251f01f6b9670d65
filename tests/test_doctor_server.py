"""`doctor`: who is believed, and whether the server's command line lets that work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from kwai_middleware._cli.doctor_server import server_of
from tests.support.doctor import FASTAPI, FLASK, GUARDED, doctor, doctor_of

SECRET = 'identify=kwai.HeaderIdentity(proxy_secret="s" * 32)'
DEFAULT = FASTAPI + "app.add_middleware(kwai.ASGIMiddleware, required=True)\n"
FLASK_GUARDED = FLASK + f"app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app, required=True, {SECRET})\n"
FLASK_DEFAULT = FLASK + "app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app, required=True)\n"
UVICORN = ("--", "uvicorn", "{app}")
QUIET = ("--no-proxy-headers", "--loop", "uvloop")


def believing(*entries: str, more: str = "") -> str:
    """An app that believes these peers."""
    return FASTAPI + (
        f"app.add_middleware(kwai.ASGIMiddleware, required=True,"
        f" identify=kwai.HeaderIdentity(trusted_peers={entries!r}{more}))\n"
    )


def with_keys(credentials: str, before: str = "") -> str:
    """An app that takes keys from there."""
    return FASTAPI + before + f"app.add_middleware(kwai.ASGIMiddleware, required=True, {SECRET}, {credentials})\n"


TOKENS = """
class Tokens:
    issuer, audience = {claims}
    def __call__(self, request):
        return None
app.add_middleware(kwai.ASGIMiddleware, identify=kwai.first_of(Tokens(), kwai.HeaderIdentity(proxy_secret="s" * 32)))
"""

TRUST: dict[str, tuple[str, str, str, str]] = {
    "anyone": ("trusts-anyone", "error", believing("*"), FASTAPI + GUARDED),
    "internet": ("trusts-anyone", "error", believing("0.0.0.0/0"), FASTAPI + GUARDED),
    "internet-v6": ("trusts-anyone", "error", believing("::/0", more=', proxy_secret="s" * 32'), FASTAPI + GUARDED),
    "docker": ("trusts-docker", "warning", believing("172.17.0.0/16"), FASTAPI + GUARDED),
    "docker-gateway": ("trusts-docker", "warning", believing("172.18.0.1"), believing("172.18.0.5")),
    "network": ("trusts-network", "note", believing("10.0.0.0/8"), believing("10.0.0.7")),
    "network-v6": ("trusts-network", "note", believing("fd00::/64"), believing("fd00::7")),
    "either": ("trusts-either", "note", believing("127.0.0.1", more=', proxy_secret="s" * 32'), FASTAPI + GUARDED),
    "short": ("short-secret", "warning", FASTAPI + GUARDED.replace("32", "15"), FASTAPI + GUARDED),
    "nobody": ("nobody-served", "note", DEFAULT.replace(", required=True", ""), DEFAULT),
    "issuer": (
        "any-issuer",
        "warning",
        FASTAPI + TOKENS.format(claims='None, "shop"'),
        FASTAPI + TOKENS.format(claims='"a", "shop"'),
    ),
    "audience": (
        "any-audience",
        "warning",
        FASTAPI + TOKENS.format(claims='"a", None'),
        FASTAPI + TOKENS.format(claims='"a", "shop"'),
    ),
    "kept": (
        "key-not-stripped",
        "warning",
        with_keys("credentials=kwai.HeaderCredentials(strip=False)"),
        with_keys("credentials=kwai.HeaderCredentials()"),
    ),
}


@pytest.mark.parametrize(("name", "severity", "wrong", "right"), TRUST.values(), ids=TRUST)
def test_who_is_believed(tmp_path: Path, name: str, severity: str, wrong: str, right: str) -> None:
    """Each finding about trust is there for what it says, names its line, and is gone when that was changed."""
    before, after = doctor(tmp_path, wrong), doctor(tmp_path, right)

    finding = before.finding(name)
    assert severity == finding["severity"]
    assert ".py:" in finding["where"]
    assert finding["change"]
    assert name not in after.names


def test_a_key_resolver_is_no_surprise(tmp_path: Path) -> None:
    """That the app's own key pays for a customer without one, and `forget` reaches one process of several, is said."""
    source = with_keys("credentials=kwai.first_of(kwai.HeaderCredentials(), kwai.KeyResolver(lambda caller: None))")
    several = doctor(tmp_path, source, *UVICORN, *QUIET, "--workers", "4")
    variable = doctor(tmp_path, source, *UVICORN, *QUIET, KWAI_BYOK="only", WEB_CONCURRENCY="2")
    one = doctor(tmp_path, source, *UVICORN, *QUIET, KWAI_BYOK="only")

    assert {"resolver-prefers", "resolver-in-workers"} == several.names
    assert "4 processes" in several.finding("resolver-in-workers")["what"]
    assert {"resolver-in-workers"} == variable.names
    assert set() == one.names
    assert (0, 0) == (several.code, one.code)


Line = tuple[str, tuple[str, ...], dict[str, str]]


def line(source: str, *words: str, **variables: str) -> Line:
    """An app, its server's command line, and the environment."""
    return source, words, variables


SERVED: dict[str, tuple[str, str, Line, Line]] = {
    "rewritten": ("peer-rewritten", "warning", line(DEFAULT, *UVICORN), line(DEFAULT, *UVICORN, "--no-proxy-headers")),
    "rewritten-secret": ("peer-rewritten", "warning", line(DEFAULT, *UVICORN), line(FASTAPI + GUARDED, *UVICORN)),
    "rewritten-variable": (
        "peer-rewritten",
        "warning",
        line(DEFAULT, *UVICORN),
        line(DEFAULT, *UVICORN, UVICORN_PROXY_HEADERS="false"),
    ),
    "rewritten-by-variable": (
        "peer-rewritten",
        "warning",
        line(believing("10.0.0.7"), *UVICORN, FORWARDED_ALLOW_IPS="10.0.0.0/8, proxy"),
        line(believing("10.0.0.7"), *UVICORN),
    ),
    "rewritten-socket": (
        "peer-rewritten",
        "warning",
        line(believing("unix"), *UVICORN, "--uds", "app.sock", "--forwarded-allow-ips", "*"),
        line(believing("unix"), *UVICORN, "--uds", "app.sock"),
    ),
    "rewritten-in-gunicorn": (
        "peer-rewritten",
        "warning",
        line(DEFAULT, "--", "python", "-m", "gunicorn", "-k", "uvicorn.workers.UvicornWorker", "{app}"),
        line(FASTAPI + GUARDED, "--", "gunicorn", "-kuvicorn.workers.UvicornWorker", "{app}"),
    ),
    "proxy-protocol": (
        "peer-rewritten",
        "warning",
        line(FLASK_DEFAULT, "--", "gunicorn", "--proxy-protocol", "v1", "{app}"),
        line(FLASK_GUARDED, "--", "gunicorn", "--proxy-protocol", "v1", "{app}"),
    ),
    "proxy-protocol-asgi": (
        "peer-forged",
        "error",
        line(DEFAULT, "--", "gunicorn", "-k", "asgi", "--proxy-protocol", "v2", "{app}"),
        line(FASTAPI + GUARDED, "--", "gunicorn", "-k", "asgi", "--proxy-protocol", "v2", "{app}"),
    ),
    "proxy-protocol-asgi-by-path": (
        "peer-forged",
        "error",
        line(DEFAULT, "--", "gunicorn", "-k", "gunicorn.workers.gasgi.ASGIWorker", "--proxy-protocol", "{app}"),
        line(DEFAULT, "--", "gunicorn", "-k", "gunicorn.workers.gasgi.ASGIWorker", "{app}"),
    ),
    "open": (
        "open-by-address",
        "warning",
        line(DEFAULT, *UVICORN, *QUIET, "--host=0.0.0.0"),
        line(FASTAPI + GUARDED, *UVICORN, *QUIET, "--host=0.0.0.0"),
    ),
    "open-gunicorn": (
        "open-by-address",
        "warning",
        line(FLASK_DEFAULT, "--", "gunicorn", "{app}", GUNICORN_CMD_ARGS="--bind '[::]:8000'"),
        line(FLASK_DEFAULT, "--", "gunicorn", "{app}", GUNICORN_CMD_ARGS="--bind unix:app.sock -b 127.0.0.1:80"),
    ),
    "open-by-port": (
        "open-by-address",
        "warning",
        line(FLASK_DEFAULT, "--", "gunicorn", "{app}", PORT="80"),
        line(FLASK_DEFAULT, "--", "gunicorn", "{app}", "-b", "127.0.0.1:80", PORT="80"),
    ),
    "open-hypercorn": (
        "open-by-address",
        "warning",
        line(DEFAULT, "--", "hypercorn", "{app}", "--bind", "0.0.0.0:80"),
        line(DEFAULT, "--", "hypercorn", "{app}", "--bind", "fd://2"),
    ),
    "forwarded": (
        "forwarded-by-anyone",
        "note",
        line(FASTAPI + GUARDED, *UVICORN, "--forwarded-allow-ips", "*"),
        line(FASTAPI + GUARDED, *UVICORN, "--forwarded-allow-ips", "127.0.0.1"),
    ),
    "forwarded-unserved": (
        "forwarded-by-anyone",
        "note",
        line(FASTAPI + GUARDED, FORWARDED_ALLOW_IPS="*"),
        line(FASTAPI + GUARDED),
    ),
    "header-map": (
        "header-map",
        "error",
        line(FLASK_GUARDED, "--", "gunicorn", "{app}", "--header-map", "dangerous"),
        line(FLASK_GUARDED, "--", "gunicorn", "{app}", "--header-map", "drop"),
    ),
    "lifespan": (
        "lifespan-off",
        "warning",
        line(FASTAPI + GUARDED, *UVICORN, *QUIET, "--lifespan", "off"),
        line(FASTAPI + GUARDED, *UVICORN, *QUIET, "--lifespan", "on"),
    ),
    "lifespan-variable": (
        "lifespan-off",
        "warning",
        line(FASTAPI + GUARDED, *UVICORN, *QUIET, UVICORN_LIFESPAN="off"),
        line(FASTAPI + GUARDED, *UVICORN, *QUIET),
    ),
    "lifespan-gunicorn": (
        "lifespan-off",
        "warning",
        line(FASTAPI + GUARDED, "--", "gunicorn", "-k", "asgi", "{app}", "--asgi-lifespan=off"),
        line(FASTAPI + GUARDED, "--", "gunicorn", "-k", "asgi", "{app}", "--asgi-lifespan=on"),
    ),
    "uwsgi": (
        "uwsgi-threads",
        "warning",
        line(FLASK_GUARDED, "--", "uwsgi", "--http", ":8000", "-w", "{app}"),
        line(FLASK_GUARDED, "--", "uwsgi", "--http", ":8000", "-w", "{app}", "--enable-threads"),
    ),
    "uwsgi-threads": (
        "uwsgi-threads",
        "warning",
        line(FLASK_GUARDED, "--", "uwsgi", "-s", "app.sock", "--threads", "1"),
        line(FLASK_GUARDED, "--", "uwsgi", "-s", "app.sock", "--threads", "4"),
    ),
    "unknown": (
        "server-unknown",
        "note",
        line(FASTAPI + GUARDED, "--", "/usr/bin/daphne", "{app}"),
        line(FASTAPI + GUARDED, *UVICORN),
    ),
    "nothing": ("server-unknown", "note", line(FASTAPI + GUARDED), line(FASTAPI + GUARDED, *UVICORN)),
    "file": (
        "server-file",
        "note",
        line(FLASK_GUARDED, "--", "gunicorn", "-c", "x.py", "{app}"),
        line(FLASK_GUARDED, "--", "gunicorn", "{app}"),
    ),
    "file-hypercorn": (
        "server-file",
        "note",
        line(FASTAPI + GUARDED, "--", "hypercorn", "--config", "x.toml", "{app}"),
        line(FASTAPI + GUARDED, "--", "hypercorn", "{app}"),
    ),
    "file-uwsgi": (
        "server-file",
        "note",
        line(FLASK_GUARDED, "--", "uwsgi", "shop.ini"),
        line(FLASK_GUARDED, "--", "uwsgi", "-T"),
    ),
}


@pytest.mark.parametrize(("name", "severity", "wrong", "right"), SERVED.values(), ids=SERVED)
def test_how_it_is_served(tmp_path: Path, name: str, severity: str, wrong: Line, right: Line) -> None:
    """Each finding about a server is there for a command line that has the fault, and gone when it was changed."""
    before = doctor(tmp_path, wrong[0], *wrong[1], **wrong[2])
    after = doctor(tmp_path, right[0], *right[1], **right[2])

    assert severity == before.finding(name)["severity"]
    assert (severity != "note") == bool(before.code)
    assert name not in after.names


def test_the_loop_that_keeps_context_variables(tmp_path: Path) -> None:
    """On asyncio's loop of these Pythons the flag that helps is named, once, and is all that is asked for."""
    asyncio = doctor(tmp_path, FASTAPI + GUARDED, *UVICORN, "--loop", "asyncio")
    h11 = doctor(tmp_path, FASTAPI + GUARDED, "--", "gunicorn", "-k", "uvicorn.workers.UvicornH11Worker", "{app}")
    auto = doctor(tmp_path, FASTAPI + GUARDED, "--", "gunicorn", "-k", "uvicorn.workers.UvicornWorker", "{app}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        elsewhere = doctor(tmp_path, FASTAPI + GUARDED, *UVICORN, "--loop", "asyncio")
    apart = doctor(tmp_path, FASTAPI + GUARDED, *UVICORN, "--loop", "asyncio", "--reset-contextvars")
    uvloop = doctor(tmp_path, FASTAPI + GUARDED, *UVICORN, UVICORN_LOOP="uvloop")

    is_kept = sys.version_info < (3, 15)
    assert is_kept == ("context-kept" in asyncio.names)
    assert not is_kept or "--reset-contextvars" in asyncio.finding("context-kept")["change"]
    assert not is_kept or "of a newer uvicorn" in elsewhere.finding("context-kept")["change"]
    assert is_kept == ("context-kept" in h11.names)
    assert set() == auto.names
    assert set() == apart.names
    assert set() == uvloop.names


def test_a_file_that_gunicorn_reads_unasked_is_named(tmp_path: Path) -> None:
    """`gunicorn.conf.py` in the folder counts although no word of the command names it."""
    (tmp_path / "gunicorn.conf.py").write_text("workers = 1\n")
    told = doctor(tmp_path, FLASK_GUARDED, "--", "gunicorn", "{app}")

    assert "gunicorn.conf.py" in told.finding("server-file")["what"]


@pytest.mark.parametrize(
    ("command", "property_name", "expected"),
    [
        ("uvicorn app:app --port", "hosts", ["127.0.0.1"]),
        ("uvicorn app:app --workers many", "workers", 1),
        ("gunicorn app:app -w3", "workers", 3),
        ("uwsgi --processes 4 -w app:app", "workers", 4),
        ("gunicorn app:app --bind [::1]:80", "hosts", ["::1"]),
        ("gunicorn app:app -b example", "hosts", ["example"]),
        ("hypercorn app:app", "trusted", None),
        ("uwsgi --http 127.0.0.1:80", "is_open", False),
    ],
)
def test_command_lines_are_read_as_servers_do(command: str, property_name: str, expected: Any) -> None:
    """Short options, options with and without `=`, and what stands there by default."""
    server = server_of(command.split(), {})

    assert expected == getattr(server, property_name)


def test_a_command_with_an_end_is_read(tmp_path: Path) -> None:
    """An option whose value is missing says nothing, and breaks nothing."""
    told = doctor(tmp_path, FASTAPI + GUARDED, *UVICORN, "--no-proxy-headers", "--loop", "uvloop", "--host")

    assert 0 == told.code


def test_for_people_it_is_aligned_and_calm(tmp_path: Path) -> None:
    """Without `--json` there is a line for each finding, below it where and what to change, and at the end a sum."""
    (tmp_path / "shop_for_people.py").write_text(DEFAULT)
    told = doctor_of(tmp_path, "shop_for_people:app", "--", "uvicorn", "shop_for_people:app", *QUIET, as_json=False)
    bad = doctor_of(tmp_path, "shop_for_people:app", "--", "uvicorn", "shop_for_people:app", as_json=False)

    assert told.output.startswith("ok    app     shop_for_people:app is there (fastapi's FastAPI)\n")
    assert told.output.endswith("\n\n0 errors, 0 warnings, 0 notes.\n")
    assert "\nwarn  server  uvicorn puts " in bad.output
    assert "\n      where   shop_for_people.py:6\n      change  uvicorn ... --no-proxy-headers" in bad.output
    assert (0, 1) == (told.code, bad.code)

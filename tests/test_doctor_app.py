"""`doctor`: the app is found, our middleware in it too, and each line to change is right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.doctor import FASTAPI, FLASK, GUARDED, doctor, doctor_command, doctor_of

CORS = "from starlette.middleware.cors import CORSMiddleware\napp.add_middleware(CORSMiddleware)\n"
PROXY_HEADERS = """
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
app.add_middleware(ProxyHeadersMiddleware)
"""
PROXY_FIX = "from werkzeug.middleware.proxy_fix import ProxyFix\napp.wsgi_app = ProxyFix(app.wsgi_app)\n"
PROXY_HEADERS_AROUND = PROXY_HEADERS.replace(
    "app.add_middleware(ProxyHeadersMiddleware)", "app = ProxyHeadersMiddleware(app)"
)
INSTANCE = """
class Served:
    app = int
    async def __call__(self, scope, receive, send): ...
app = Served()
"""
EMPTY_CELL = """
def empty():
    async def served(scope, receive, send):
        await app(scope, receive, send)
    if not served:
        app = served
    return served
app = empty()
"""
OURS = "app.add_middleware(kwai.ASGIMiddleware, required=True)\n"
OURS_IN_FLASK = "app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app, required=True)\n"
OVERRIDE = """
class MethodOverrideMiddleware:
    def __init__(self, app):
        self.app = app
    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)
app.add_middleware(MethodOverrideMiddleware)
"""
OTEL = """
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
FastAPIInstrumentor.instrument_app(app)
"""
OTEL_LAYER = """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
app = OpenTelemetryMiddleware(app, http_capture_headers_server_request=[".*key"])
"""
SENTRY_LAYER = "from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware\napp = SentryWsgiMiddleware(app)\n"
CAPTURED = {"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "accept.*,x-.*"}
READER = """
class Reader:
    def __init__(self, app):
        self.app = app
    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)
app.add_middleware(Reader)
"""
MOUNTED = """
inner = FastAPI()
app.mount("/api", inner)
"""
INNER = MOUNTED + "inner.add_middleware(kwai.ASGIMiddleware, required=True)\n"
INNER_AGAIN = MOUNTED + "inner.add_middleware(kwai.ASGIMiddleware, required=True, override=True)\n"
WRAPPED = "app = kwai.ASGIMiddleware(app, required=True)\n"
BARE = "import kwai_middleware as kwai\nasync def app(scope, receive, send): ...\n"
BARE_WSGI = "import kwai_middleware as kwai\ndef app(environ, start_response): ...\n"

ADVICE = {
    "absent": ("middleware-absent", "error", FASTAPI, FASTAPI + OURS),
    "absent-in-flask": ("middleware-absent", "error", FLASK, FLASK + OURS_IN_FLASK),
    "unseen": ("middleware-absent", "warning", BARE, BARE + "app = kwai.ASGIMiddleware(app)\n"),
    "unseen-wsgi": ("middleware-absent", "warning", BARE_WSGI, BARE_WSGI + "app = kwai.WSGIMiddleware(app)\n"),
    "unseen-instance": (
        "middleware-absent",
        "warning",
        BARE + INSTANCE,
        BARE + INSTANCE + "app = kwai.ASGIMiddleware(app)\n",
    ),
    "unseen-empty": ("middleware-absent", "warning", BARE + EMPTY_CELL, BARE + "app = kwai.ASGIMiddleware(app)\n"),
    "proxy-headers-around": (
        "peer-rewritten",
        "warning",
        FASTAPI + OURS + PROXY_HEADERS_AROUND,
        FASTAPI + PROXY_HEADERS_AROUND + WRAPPED,
    ),
    "below-mount": ("middleware-below-mount", "note", FASTAPI + INNER, FASTAPI + INNER_AGAIN + OURS),
    "cors": ("cors-inside", "warning", FASTAPI + CORS + OURS, FASTAPI + OURS + CORS),
    "cors-wrapped": (
        "cors-inside",
        "warning",
        FASTAPI + CORS + WRAPPED,
        FASTAPI + WRAPPED + "from starlette.middleware.cors import CORSMiddleware\napp = CORSMiddleware(app)\n",
    ),
    "proxy-headers": ("peer-rewritten", "warning", FASTAPI + OURS + PROXY_HEADERS, FASTAPI + PROXY_HEADERS + OURS),
    "method-override": ("method-override-inside", "error", FASTAPI + OVERRIDE + OURS, FASTAPI + OURS + OVERRIDE),
    "twice": (
        "middleware-twice",
        "warning",
        FASTAPI + INNER + OURS.replace("True", "False"),
        FASTAPI + INNER_AGAIN + OURS.replace("True", "False"),
    ),
    "twice-the-same": ("middleware-twice", "note", FASTAPI + OURS + OURS, FASTAPI + OURS),
    "reader": ("outside", "note", FASTAPI + OURS + READER, FASTAPI + READER + OURS),
    "otel": ("opentelemetry-outside", "warning", FASTAPI + OURS + OTEL, FASTAPI + OTEL + WRAPPED),
    "otel-wrapped": ("opentelemetry-outside", "warning", FASTAPI + OURS + OTEL_LAYER, FASTAPI + OTEL_LAYER + WRAPPED),
    "sentry-wrapped": (
        "sentry-outside",
        "warning",
        FLASK + OURS_IN_FLASK + SENTRY_LAYER,
        FLASK + SENTRY_LAYER + "app = kwai.WSGIMiddleware(app, required=True)\n",
    ),
    "arguments": (
        "middleware-arguments",
        "error",
        FASTAPI + OURS.replace("required=True", "required=1"),
        FASTAPI + OURS,
    ),
    "unknown-argument": (
        "middleware-arguments",
        "error",
        FASTAPI + OURS.replace("required=True", "require=True"),
        FASTAPI + OURS,
    ),
}


@pytest.mark.parametrize(("name", "severity", "wrong", "right"), ADVICE.values(), ids=ADVICE)
def test_what_is_wrong_is_found_and_the_change_cures_it(
    tmp_path: Path, name: str, severity: str, wrong: str, right: str
) -> None:
    """Each finding is there for the app that has the fault, and gone when the line is what it says."""
    before = doctor(tmp_path, wrong, **CAPTURED)
    after = doctor(tmp_path, right, **CAPTURED)

    finding = before.finding(name)
    assert severity == finding["severity"]
    assert (severity != "note") <= bool(before.code)
    assert finding["change"] or name == "middleware-arguments"
    assert name not in after.names


@pytest.mark.parametrize(
    "source",
    [
        FASTAPI + OTEL + OURS,
        FLASK + OURS_IN_FLASK + PROXY_FIX,
        FASTAPI + CORS + OURS.replace(", required=True", ""),
    ],
)
def test_what_does_no_harm_is_not_called_wrong(tmp_path: Path, source: str) -> None:
    """OpenTelemetry that captures no key, werkzeug's ProxyFix, which is seen through, CORS where nobody is refused."""
    told = doctor(tmp_path, source, OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS=".*key.*", **CAPTURED)

    assert set() == {"cors-inside", "opentelemetry-outside", "peer-rewritten"} & told.names


SENTRY = """
import sentry_sdk
from sentry_sdk.integrations.flask import FlaskIntegration
sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1", default_integrations=False, auto_enabling_integrations=False,
    integrations=[FlaskIntegration()], shutdown_timeout=0,
)
"""


def test_sentry_around_flask_is_found_as_readme_has_it(tmp_path: Path) -> None:
    """Sentry's own wrapper around every Flask app is found where it is set up, and is inside of a wrapped app."""
    (tmp_path / "inside.py").write_text(SENTRY + FLASK + OURS_IN_FLASK + "application = kwai.WSGIMiddleware(app)\n")
    (tmp_path / "outside.py").write_text(SENTRY + FLASK + "application = kwai.WSGIMiddleware(app)\n")
    inside = doctor_command(tmp_path, "--offline", "--json", "inside:app")
    outside = doctor_command(tmp_path, "--offline", "--json", "outside:application")

    assert "application = kwai.WSGIMiddleware(app" in inside.finding("sentry-outside")["change"]
    assert "sentry-outside" not in outside.names


def test_the_line_is_named(tmp_path: Path) -> None:
    """A finding names the file and line in the app's own code, also in a module that it imports, but in no library."""
    (tmp_path / "setup_of_shop.py").write_text(
        "import kwai_middleware as kwai\n\ndef guard(app):\n    app.add_middleware(kwai.ASGIMiddleware)\n"
    )
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "a_library_of_the_shop.py").write_text("def around(app):\n    return ASGIMiddleware(app)\n")
    told = doctor(
        tmp_path,
        "import sys\nsys.path.append('site-packages')\nimport a_library_of_the_shop\n"
        + FASTAPI
        + "from setup_of_shop import guard\nguard(app)\n",
    )

    assert "setup_of_shop.py:4" == told.finding("nobody-served")["where"]


WAYS = {
    "starlette": "from starlette.applications import Starlette\napp = Starlette()\n" + GUARDED,
    "wrapped-in-wrapped": FASTAPI + GUARDED + "from functools import wraps\ninner = app\n@wraps(app)\n"
    "async def app(scope, receive, send):\n    await inner(scope, receive, send)\n",
    "decorator": FASTAPI + GUARDED + "def around(app):\n    async def wrapper(scope, receive, send):\n"
    "        await app(scope, receive, send)\n    return wrapper\napp = around(app)\n",
    "method": FASTAPI + GUARDED + "app = app.__call__\n",
    "dispatched": FLASK
    + "from werkzeug.middleware.dispatcher import DispatcherMiddleware\n"
    + 'guarded = kwai.WSGIMiddleware(app, required=True, identify=kwai.HeaderIdentity(proxy_secret="s" * 32))\n'
    + 'app = DispatcherMiddleware(guarded, {"/also": guarded})\n',
    "otel-flask": FLASK + OURS_IN_FLASK + "from opentelemetry.instrumentation.flask import FlaskInstrumentor\n"
    "FlaskInstrumentor().instrument_app(app)\n",
    "in-a-circle": FASTAPI + GUARDED + 'app.mount("/again", app)\n',
    "factory": FASTAPI + GUARDED + "made = app\ndef app():\n    return made\n",
    "quiet": FASTAPI + GUARDED + 'print("hello from the app")\n',
}


@pytest.mark.parametrize("way", WAYS)
def test_the_middleware_is_found_however_the_app_is_put_together(tmp_path: Path, way: str) -> None:
    """In the framework, around it, behind decorators and dispatchers; what the app prints is no part of the JSON."""
    source = WAYS[way]
    source = source.replace("app = Starlette()", "import kwai_middleware as kwai\napp = Starlette()")
    told = doctor(tmp_path, source, *(["--factory"] if way == "factory" else []))

    assert "middleware-absent" not in told.names
    assert "middleware-present" in told.output


def test_a_factory_is_called_as_servers_do(tmp_path: Path) -> None:
    """`module:factory()` is called; one that fails is a finding with its last words."""
    (tmp_path / "made.py").write_text(FASTAPI + GUARDED + "def make():\n    return app\ndef broken():\n    1 / 0\n")
    made = doctor_of(tmp_path, "made:make()")
    broken = doctor_of(tmp_path, "made:broken()")

    assert 0 == made.code
    assert "ZeroDivisionError: division by zero" in broken.finding("app-import")["what"]
    assert "made.py:10" == broken.finding("app-import")["where"]


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("import no_such_module_at_all", "app-import", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("def app(:", "app-import", "SyntaxError"),
        ("import sys; sys.exit(3)", "app-import", "SystemExit: 3"),
        ("raise ValueError", "app-import", "ValueError"),
        ("application = 1", "app-not-found", "no attribute 'app'"),
        ("app = 1", "app-not-callable", "is a int"),
    ],
)
def test_an_app_that_cannot_be_imported_is_a_finding(tmp_path: Path, source: str, name: str, words: str) -> None:
    """What is wrong is said in one line, without a traceback, and the rest is looked at all the same."""
    told = doctor(tmp_path, source)

    assert 1 == told.code
    assert words in told.finding(name)["what"]
    assert "Traceback" not in told.output + told.errors
    assert "on-disk" in told.output


def test_a_module_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    """The module itself may be misspelt: then there is no line to name."""
    told = doctor_of(tmp_path, "no_such_shop:app")

    assert None is told.finding("app-import")["where"]


@pytest.mark.parametrize("app", ["shop", "shop:", ":app", "shop:app:app", "shop app:app", "shop:make(1)"])
def test_wrong_usage_is_explained(tmp_path: Path, app: str) -> None:
    """What names no app is exit code 2."""
    told = doctor_of(tmp_path, app)

    assert 2 == told.code
    assert "expected module:app" in told.errors
    assert app not in sys.modules


def test_app_dir_names_another_folder(tmp_path: Path) -> None:
    """The module is found in another folder, as with uvicorn's option of that name."""
    inner = tmp_path / "src"
    inner.mkdir()
    (inner / "shop_in_src.py").write_text(FASTAPI + GUARDED)

    assert 0 == doctor_of(tmp_path, "shop_in_src:app", "--app-dir", "src").code
    assert 1 == doctor_of(tmp_path, "shop_in_src:app").code

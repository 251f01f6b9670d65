"""The door for requests: calls are the caller's, answers are the library's own, and each attempt is one record."""

from __future__ import annotations

import gc
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import HTTPDigestAuth
from urllib3.util.retry import Retry

from kwai_middleware import (
    CannotAttribute,
    ConfigurationError,
    MissingCredential,
    Route,
    bind_caller,
    carry_caller,
)
from kwai_middleware._outbound.observation import Ending
from kwai_middleware.requests_adapter import KwaiAdapter, session
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import GATEWAY, OPENROUTER, caller, settings
from tests.support.door_calls import (
    APP,
    BODY,
    KEY,
    OK,
    QUESTION,
    assert_all_are_their_own,
    assert_is_the_callers,
    chat_url,
)
from tests.support.examples import HOUSE_KEY, sandbox_process
from tests.support.exposure import exposures
from tests.support.raw_server import Connection, raw_server
from tests.support.wired import RELAY


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


# --- against the vendors


@pytest.mark.parametrize("route", ["gateway", "relay", "direct"])
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
def test_a_call_on_every_route(vendors: Sandbox, route: str, streamed: bool) -> None:
    """The caller pays and is named, the app gets its answer, and the record has all of it."""
    vendors.reset()
    calls: list[Any] = []
    body = {"model": "openai/gpt-4o", "messages": QUESTION, "stream": streamed}
    with session(settings=vendors.settings(), deliver=calls.append) as client, bind_caller(caller()):
        response = client.post(
            chat_url(vendors, route), json=body, headers={"authorization": f"Bearer {HOUSE_KEY}"}, stream=streamed
        )
        lines = list(response.iter_lines()) if streamed else [response.content]
    assert b"three" in b"".join(lines)
    assert_is_the_callers(vendors, calls, route, streamed=streamed)


@pytest.mark.parametrize("model", ["sandbox/gzip", "sandbox/zstd"])
@pytest.mark.parametrize("way", ["content", "raw", "decoding raw"])
def test_a_compressed_answer(vendors: Sandbox, model: str, way: str) -> None:
    """Whether the app lets it be decoded or takes the bytes as they came, the record has the text."""
    calls: list[Any] = []
    with session(settings=vendors.settings(), deliver=calls.append) as client, bind_caller(caller()):
        body = {"model": model, "messages": QUESTION, "stream": True}
        response = client.post(
            chat_url(vendors, "direct"), json=body, headers={**APP, "accept-encoding": "gzip, zstd"}, stream=True
        )
        coding = response.headers["content-encoding"]
        if way == "decoding raw":
            response.raw.decode_content = True
        content = response.content if way == "content" else response.raw.read()
    assert content.startswith(b": OPENROUTER") == (way != "raw" and coding in urllib3.HTTPResponse.CONTENT_DECODERS)
    [record] = [call.build() for call in calls]
    assert ("complete", "one two three") == (record.outcome, record.completions[0]["content"])


def test_sixteen_customers_share_one_session(vendors: Sandbox) -> None:
    """Threads that stream at the same time are each their own caller's, and carried callers too."""
    vendors.reset()
    calls: list[Any] = []
    customers = [f"customer-{number}" for number in range(16)]
    together = threading.Barrier(16)
    with session(settings=vendors.settings(), deliver=calls.append) as client, ThreadPoolExecutor(16) as executor:

        def ask() -> bytes:
            together.wait(30)
            body = {"model": "openai/gpt-4o", "messages": QUESTION, "stream": True}
            response = client.post(chat_url(vendors, "gateway"), json=body, headers=APP, stream=True)
            return b"".join(response.iter_content(None))

        asked = []
        for customer in customers:
            with bind_caller(caller(customer)):
                asked.append(executor.submit(carry_caller(ask)))
        assert all(b"[DONE]" in each.result(30) for each in asked)
    assert_all_are_their_own(vendors, calls, customers)


# --- what goes to the wire


class _Inner(BaseAdapter):
    """An adapter that opens no connection: keeps what it was given, and answers what the test says."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.kept: list[Any] = []
        self.answers = list(answers)

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        self.kept.append(request)
        self.bodies.append(request.body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Exception):
            answer.request = request  # type: ignore[attr-defined]  # as requests does
            raise answer
        if callable(answer):
            return answer(request, self)
        return _response(request, self, **answer)

    def close(self) -> None:
        self.kept.clear()


def _response(request: Any, adapter: Any, status: int = 200, raw: Any = None, **headers: str) -> Any:
    response = requests.Response()
    response.status_code, response.url, response.request, response.connection = status, request.url, request, adapter
    response.headers.update(headers)
    response.raw = (
        urllib3.HTTPResponse(io.BytesIO(b"{}"), headers, status, preload_content=False) if raw is None else raw
    )
    return response


def _around(inner: Any, calls: list[Any] | None = None, refuse: Any = "raise", **options: Any) -> requests.Session:
    made = requests.Session()
    deliver = (lambda call: None) if calls is None else calls.append
    made.mount("https://", KwaiAdapter(inner, settings=settings(**options), deliver=deliver, refuse=refuse))
    return made


class _Reader:
    """A file that is no file: only read() is there."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def read(self, size: int = -1) -> Any:
        content, self._content = self._content, self._content[:0]
        return content

    def __iter__(self) -> Iterator[Any]:
        return iter([self._content])


TEXT = BODY.decode()
BODIES = {
    "json": lambda: {"json": {"model": "m"}},
    "bytes": lambda: {"data": BODY},
    "text": lambda: {"data": TEXT},
    "a buffer": lambda: {"data": bytearray(BODY)},
    "a generator": lambda: {"data": iter([BODY[:5], BODY[5:]])},
    "a generator of text": lambda: {"data": iter([TEXT[:5], TEXT[5:]])},
    "a file": lambda: {"data": io.BytesIO(BODY)},
    "a file of text": lambda: {"data": io.StringIO(TEXT)},
    "what only reads": lambda: {"data": _Reader(BODY)},
}


@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("url", [GATEWAY, RELAY, OPENROUTER], ids=["gateway", "relay", "direct"])
def test_every_kind_of_body_carries_the_key(make: Any, url: str) -> None:
    """What arrives is the app's body with the caller's key and name, and a length that is right."""
    inner, calls = _Inner(), []
    with bind_caller(caller()):
        response = _around(inner, calls).post(url, headers=APP, **make())
    [body], [headers] = inner.bodies, inner.headers
    if url == OPENROUTER:
        assert f"Bearer {KEY}" == headers["authorization"]
        assert response.request.body is body
    else:
        own = json.loads(body)
        assert "m" == own.pop("model")
        assert "acme" in json.dumps(own)
        assert (url == GATEWAY) == (KEY in json.dumps(own))
        assert ("content-length" in headers) == ("transfer-encoding" not in headers)
        assert headers.get("content-length") in (None, str(len(body)))
    assert KEY not in repr(vars(response)) + repr(vars(response.request))
    assert KEY not in str(response.request.body) + str(response.request.headers)
    assert 1 == len(calls)


def test_a_form_has_a_header_beside_it() -> None:
    """Form fields are no members of a JSON object; one that says whose it is, is refused before a byte is sent."""
    inner = _Inner()
    client = _around(inner)
    with bind_caller(caller()):
        client.post(GATEWAY, data={"model": "m"})
        client.post(GATEWAY, files={"file": ("a.wav", b"RIFF" * 1000)})
        with pytest.raises(CannotAttribute, match="names a parameter"):
            client.post(GATEWAY, data={"customer_identifier": "forged"})
        with pytest.raises(CannotAttribute, match="send it as json="):
            client.post(RELAY, data={"model": "m"})
        with pytest.raises(CannotAttribute, match="in pieces"):
            client.post(GATEWAY, data=iter([b" " * (9 << 20)] * 4))
    assert 2 == len(inner.bodies)
    assert all("x-data-respan-params" in headers for headers in inner.headers)
    assert b"RIFF" * 1000 in inner.bodies[1]


def test_a_body_that_fails_to_be_read_fails_as_without_us() -> None:
    """What it raises reaches the app, and nothing was sent."""

    def failing() -> Iterator[bytes]:
        yield BODY[:5]
        raise OSError("the disk is gone")

    inner = _Inner()
    with bind_caller(caller()), pytest.raises(OSError, match="the disk is gone"):
        _around(inner).post(GATEWAY, data=failing())
    assert [] == inner.bodies


def test_a_call_without_a_body_is_a_call() -> None:
    """The vendor gives its own error for it."""
    inner, calls = _Inner(), []
    with bind_caller(caller()):
        _around(inner, calls).post(OPENROUTER, headers=APP)
    assert ([None], b"") == (inner.bodies, calls[0].request_body)
    assert "0" == inner.headers[0]["content-length"]


def test_an_answer_that_cannot_be_watched_reaches_the_app(nothing_is_swallowed: list[BaseException]) -> None:
    """An adapter inside may hand over what is hardly an answer: it is the app's, and nothing stays open."""

    class Headless(io.BytesIO):
        headers = None

    inner, calls = _Inner({"raw": Headless(b"{}")}), []
    with bind_caller(caller()):
        assert b"{}" == _around(inner, calls).post(OPENROUTER, data=b"{}", headers=APP).content
    assert [(Ending.ABANDONED, None)] == [(call.ending, call.status) for call in calls]
    assert [AttributeError] == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()


UNTOUCHED = [
    "https://api.keywordsai.co/api/users",
    "https://user:word@openrouter.ai/api/v1/chat/completions",
    "https://openrouter.ai:8443/api/v1/chat/completions",
    "https://openrouter.ai.evil.example/api/v1/chat/completions",
    "https://evil.example\\@openrouter.ai/api/v1/chat/completions",
    "https://openrouter.ai/api/v1/../v2/chat/completions",
]


@pytest.mark.parametrize("url", UNTOUCHED)
def test_what_is_not_on_the_list_is_the_apps_own_request(url: str) -> None:
    """The adapter inside gets the very object, byte for byte as it was."""
    inner, calls = _Inner(), []
    client = _around(inner, calls)
    request = client.prepare_request(requests.Request("POST", "https://openrouter.ai/", data=BODY, headers=APP))
    request.url = url
    with bind_caller(caller()):
        client.send(request)
    assert [request] == inner.kept
    assert [] == calls


@pytest.mark.parametrize("url", [None, "https://openrouter.ai:port/api/v1/chat/completions"])
def test_a_url_that_nobody_reads_is_the_adapters_inside(url: Any) -> None:
    """Its own error comes up, not one of ours."""
    adapter = KwaiAdapter(settings=settings(), deliver=lambda call: None)
    request = requests.Request("POST", OPENROUTER).prepare()
    request.url = url
    with pytest.raises((requests.RequestException, AttributeError, urllib3.exceptions.HTTPError)):
        adapter.send(request)
    adapter.close()


def test_a_default_port_and_a_query_are_the_same_endpoint() -> None:
    """As they are to the server."""
    inner = _Inner()
    with bind_caller(caller()):
        _around(inner).post("https://openrouter.ai:443/api/v1/chat/completions?a=b", data=BODY, headers=APP)
    assert f"Bearer {KEY}" == inner.headers[0]["authorization"]


@pytest.mark.parametrize("refuse", ["raise", "response"])
def test_a_refused_call(refuse: Any) -> None:
    """Nothing is sent; the app gets our exception, or an answer that says the same."""
    inner, calls = _Inner(), []
    client = _around(inner, calls, refuse, byok="only")
    if refuse == "raise":
        with pytest.raises(MissingCredential, match="byok='only'"):
            client.post(OPENROUTER, data=BODY)
    else:
        response = client.post(OPENROUTER, data=BODY)
        assert (401, "missing_credential") == (response.status_code, response.headers["x-kwai-refused"])
        assert "byok='only'" in response.json()["error"]["message"]
        assert (BODY, OPENROUTER, "Unauthorized") == (response.request.body, response.url, response.reason)
    assert ([], []) == (inner.kept, calls)


def test_what_is_no_adapter_is_refused_at_once() -> None:
    """And what is wrapped already, since a call would be recorded twice; so is a word that means nothing."""
    wrapped = KwaiAdapter(settings=settings(), deliver=lambda call: None)
    for wrong, match in ((wrapped, "wrapped already"), (object(), "expected an adapter")):
        with pytest.raises(ConfigurationError, match=match):
            KwaiAdapter(wrong, settings=settings())  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ConfigurationError, match="'raise' or 'response'"):
        session(settings=settings(), deliver=lambda call: None, refuse="hide")  # type: ignore[arg-type]  # as above


def test_a_plain_adapter_reads_its_settings_from_the_environment(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one line for a user is enough: settings and delivery are the environment's."""
    vendors.reset()
    monkeypatch.setenv("OPENROUTER_BASE_URL", vendors.openrouter_url)
    monkeypatch.setenv("KEYWORDSAI_BASE_URL", vendors.gateway_url)
    monkeypatch.setenv("KEYWORDSAI_API_KEY", "keywordsai-app-key-0123")
    client = requests.Session()
    client.mount("http://", KwaiAdapter())
    with client, bind_caller(caller()):
        client.post(
            chat_url(vendors, "direct"), json={"model": "sandbox/echo", "messages": QUESTION}
        ).raise_for_status()
    assert "acme" == vendors.logs(wait=1)[0]["log"]["customer_params"]["customer_identifier"]


# --- sent again: by hand, after redirects, challenges and failures


def _attempts(calls: list[Any]) -> list[tuple[bool, int]]:
    records = [call.build() for call in calls]
    return [(record.call_id == records[0].call_id, record.attempt) for record in records]


def test_a_request_is_unchanged_and_can_be_sent_again() -> None:
    """Who repeats a prepared request repeats the call; a new one, with the same bytes, is another call."""
    inner, calls = _Inner(), []
    client = _around(inner, calls)
    request = client.prepare_request(requests.Request("POST", GATEWAY, data=BODY, headers=APP))
    other = client.prepare_request(requests.Request("POST", GATEWAY, data=BODY, headers=APP))
    before = dict(request.headers)
    with bind_caller(caller()):
        for each in (request, request, other):
            assert client.send(each).request is each
    assert (BODY, before) == (request.body, dict(request.headers))
    assert inner.bodies[0] == inner.bodies[1]
    assert [(True, 1), (True, 2), (False, 1)] == _attempts(calls)


def test_what_was_sent_is_forgotten_with_its_request() -> None:
    """Nothing is kept of a call when its request is gone."""
    inner = _Inner()
    client = _around(inner)
    for _ in range(5):
        client.post(OPENROUTER, data=BODY)
    client.close()
    gc.collect()
    assert {} == client.get_adapter("https://a")._sent._marks  # type: ignore[attr-defined]  # nowhere else to see it


def test_a_redirect_is_judged_by_where_it_goes() -> None:
    """A listed host is the second attempt, with the key; a stranger gets what the app wrote, and nothing of ours."""
    calls: list[Any] = []
    inner = _Inner(
        {"status": 307, "location": "https://llm.example/v1/chat/completions"},
        {"status": 307, "location": "https://stranger.example/v1/chat/completions"},
        {},
    )
    with bind_caller(caller()):
        response = _around(inner, calls, routes=(Route("https://llm.example/v1", kind="gateway"),)).post(
            OPENROUTER, data=BODY, headers=APP
        )
    assert [(True, 1), (True, 2)] == _attempts(calls)
    assert KEY in inner.headers[0]["authorization"]
    assert KEY.encode() in inner.bodies[1]
    assert BODY == inner.bodies[2]
    assert "authorization" not in inner.headers[2]
    assert "acme" not in str(inner.headers[2])
    assert all(KEY not in str(each.request.headers) + str(each.request.body) for each in (response, *response.history))


def test_a_challenge_that_is_answered_goes_through_us_again() -> None:
    """Requests answers it over the adapter that the response names: the second attempt is the caller's too."""
    challenge = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
    inner, calls = _Inner({"status": 401, "www-authenticate": challenge}, {}), []
    with bind_caller(caller()):
        _around(inner, calls).post(GATEWAY, data=BODY, auth=HTTPDigestAuth("user", "word"))
    assert [True, True] == [KEY.encode() in body for body in inner.bodies]
    assert [(True, 1), (True, 2)] == _attempts(calls)


def test_hooks_and_auth_callbacks_see_the_apps_own_request() -> None:
    """Whatever prints a request prints what the app wrote."""
    seen: list[Any] = []

    def auth(request: Any) -> Any:
        seen.append(request)
        return request

    def hook(response: Any, **options: Any) -> None:
        seen.append(response.request)

    inner = _Inner()
    with bind_caller(caller()):
        response = _around(inner).post(GATEWAY, data=BODY, auth=auth, hooks={"response": hook})
    assert [BODY] * 3 == [request.body for request in (*seen, response.request)]
    assert KEY not in str([dict(vars(request)) for request in seen])


class _Counts(Retry):
    """A user's own kind of rules."""


@pytest.mark.parametrize("kind", [Retry, _Counts])
def test_each_attempt_of_urllib3_is_one_record(kind: Any) -> None:
    """Its retries happen below us: each is recorded, with what the server said, and all share one call."""
    arrived: list[bytes] = []

    def answers(connection: Connection) -> None:
        while True:
            arrived.append(connection.request()[1])
            if len(arrived) == 1:
                connection.send(b"HTTP/1.1 503 No\r\ncontent-length: 26\r\n\r\n" + b'{"error":{"message":"busy"}}'[:26])
            elif len(arrived) == 2:
                connection.reset()
                return
            else:
                connection.send(OK)

    calls: list[Any] = []
    with raw_server(answers) as server:
        retries = kind(3, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
        listed = settings(routes=(Route(f"{server.url}/v1", kind="gateway"),))
        with session(settings=listed, deliver=calls.append, max_retries=retries) as client, bind_caller(caller()):
            response = client.post(f"{server.url}/v1/chat/completions", data=BODY)
            client.post(f"{server.url}/v1/chat/completions", data=BODY)
        assert isinstance(response.raw.retries, kind)
        assert repr(response.raw.retries).startswith(kind.__name__)
    assert [(True, 1), (True, 2), (True, 3), (False, 1)] == _attempts(calls)
    assert [503, None, 200, 200] == [call.status for call in calls]
    assert b"busy" in b"".join(calls[0].chunks)
    assert Ending.ERROR is calls[1].ending
    assert [True] * 4 == [KEY.encode() in body for body in arrived]


def test_a_retried_answer_that_breaks_off_is_an_attempt_too() -> None:
    """urllib3 passes over it and tries again; so is the last one recorded, and the app gets what urllib3 gives."""
    arrived: list[bytes] = []

    def answers(connection: Connection) -> None:
        arrived.append(connection.request()[1])
        connection.send(b"HTTP/1.1 503 No\r\ncontent-length: 100\r\n\r\n{")
        connection.reset()

    calls: list[Any] = []
    with raw_server(answers) as server:
        rules = Retry(1, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
        listed = settings(routes=(Route(f"{server.url}/v1"),))
        adapter = HTTPAdapter(max_retries=rules)
        for _ in range(2):  # an adapter that was wrapped before tells once
            with requests.Session() as client, bind_caller(caller()):
                client.mount("http://", KwaiAdapter(adapter, settings=listed, deliver=calls.append))
                with pytest.raises(requests.exceptions.RetryError) as caught:
                    client.post(f"{server.url}/v1/chat/completions", data=BODY)
        assert caught.value.request is not None
        assert BODY == caught.value.request.body
    assert [1, 2, 1, 2] == [call.attempt.number for call in calls]
    assert [503, 503] == [call.status for call in calls[:2]]
    assert "RetryError" == calls[1].error[0]
    with pytest.raises(requests.ConnectionError), requests.Session() as plain:
        plain.mount("http://", adapter)  # and alone it tells nobody
        plain.post(f"{server.url}/v1/chat/completions", data=BODY)
    assert 4 == len(calls)


@pytest.mark.parametrize("kind", ["gateway", "direct"])
def test_the_errors_of_earlier_attempts_show_no_key(kind: Any) -> None:
    """An answer remembers them, with type and text; the frames that held what went out are gone."""
    arrived: list[bytes] = []

    def answers(connection: Connection) -> None:
        arrived.append(connection.request()[1])
        if len(arrived) == 1:
            connection.reset()
        else:
            connection.send(OK)

    with raw_server(answers) as server:
        listed = settings(routes=(Route(f"{server.url}/v1", kind=kind),))
        retries = Retry(1, allowed_methods=None, backoff_factor=0)
        with session(settings=listed, deliver=lambda call: None, max_retries=retries) as client, bind_caller(caller()):
            response = client.post(f"{server.url}/v1/chat/completions", data=BODY)
    [attempt] = response.raw.retries.history
    assert isinstance(attempt.error, urllib3.exceptions.ProtocolError)
    reset = attempt.error.args[1]
    assert isinstance(reset, ConnectionResetError)
    assert [] == exposures(attempt.error, KEY, below="urlopen") + exposures(reset, KEY, below="urlopen")


@pytest.mark.parametrize("raises", [True, False])
def test_the_last_answer_that_is_not_retried(raises: bool) -> None:
    """As an exception or as a response, it is recorded with what it said, and the app has all of it."""
    busy = b'{"error":{"message":"busy"}}'

    def answers(connection: Connection) -> None:
        while True:
            connection.request()
            connection.send(b"HTTP/1.1 503 No\r\ncontent-length: %d\r\n\r\n" % len(busy) + busy)

    calls: list[Any] = []
    with raw_server(answers) as server:
        listed = settings(routes=(Route(f"{server.url}/v1"),))
        rules = Retry(1, status_forcelist=[503], allowed_methods=None, backoff_factor=0, raise_on_status=raises)
        with session(settings=listed, deliver=calls.append, max_retries=rules) as client:
            if raises:
                with pytest.raises(requests.exceptions.RetryError):
                    client.post(f"{server.url}/v1/chat/completions", data=BODY)
            else:
                assert busy == client.post(f"{server.url}/v1/chat/completions", data=BODY).content
    assert [(503, busy)] * 2 == [(call.status, b"".join(call.chunks)) for call in calls]


def test_a_call_within_a_body_keeps_its_retries_to_itself() -> None:
    """A body that fetches something while it goes out, by the same session, is still one attempt."""
    answers = [b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", OK, OK]
    lines: list[bytes] = []

    def handle(connection: Connection) -> None:
        while True:
            head, _ = connection.request()
            if b"chunked" in head:
                connection.chunks()
            lines.append(head.split(b" HTTP")[0])
            connection.send(answers.pop(0))

    calls: list[Any] = []
    with raw_server(handle) as server:
        listed = settings(routes=(Route(f"{server.url}/v1", kind="direct"),))
        rules = Retry(1, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
        with session(settings=listed, deliver=calls.append, max_retries=rules) as client, bind_caller(caller()):

            def body() -> Iterator[bytes]:
                yield BODY[:5]
                assert 200 == client.get(f"{server.url}/more").status_code
                yield BODY[5:]

            client.post(f"{server.url}/v1/chat/completions", data=body())
    assert [b"GET /more", b"GET /more", b"POST /v1/chat/completions"] == lines
    assert [(1, 200)] == [(call.attempt.number, call.status) for call in calls]

"""Attempts at one call share its id, and calls of one unit of work their trace: in every record of them."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from kwai_middleware import bind_caller, carry_caller, httpx_transport
from kwai_middleware._caller import Credential
from kwai_middleware._delivery.call_event import emit
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._outbound import attempts
from kwai_middleware._record import CompletedCall
from kwai_middleware._route import Route
from kwai_middleware._secret import Secret
from tests.support.callers import GATEWAY, OPENROUTER, caller, settings
from tests.support.flavours import SYNC_FLAVOURS, Flavour

HEX = set("0123456789abcdef")


class _Answers:
    """A vendor that gives these answers, one after the other."""

    def __init__(self, flavour: Flavour, *answers: Any) -> None:
        self.flavour = flavour
        self.calls: list[Any] = []
        self._answers = list(answers)

    def __call__(self, request: Any) -> Any:
        status, headers = self._answers.pop(0)
        return self.flavour.library.Response(status, headers=headers, json={})

    @property
    def records(self) -> list[CompletedCall]:
        return [call.build() for call in self.calls]

    def client(self, **options: Any) -> Any:
        routes = (Route("https://llm.example/v1"),)
        return self.flavour.answering(
            self, settings=settings(routes=routes), deliver=self.calls.append, client=options or None
        )


def _ids(records: list[CompletedCall]) -> list[tuple[str | None, int]]:
    return [(record.call_id, record.attempt) for record in records]


def test_each_call_has_an_id_of_its_own(flavour: Flavour) -> None:
    """Calls of one block share a trace and nothing else."""
    vendor = _Answers(flavour, (200, {}), (200, {}))
    client = vendor.client()
    with bind_caller(caller()):
        for _ in range(2):
            flavour.post(client, OPENROUTER, content=b"{}")
    flavour.close(client)
    first, second = vendor.records
    assert first.call_id != second.call_id
    assert [1, 1] == [first.attempt, second.attempt]
    assert first.trace_id == second.trace_id
    for text in (first.call_id, first.trace_id):
        assert text is not None
        assert 32 == len(text)
        assert set(text) <= HEX


def test_a_redirect_that_keeps_the_body_is_an_attempt_of_the_same_call(flavour: Flavour) -> None:
    """The hop to another listed destination is the second attempt."""
    vendor = _Answers(flavour, (307, {"location": "https://llm.example/v1/chat/completions"}), (200, {}))
    client = vendor.client(follow_redirects=True)
    with bind_caller(caller()):
        flavour.post(client, OPENROUTER, content=b"{}")
    flavour.close(client)
    first, second = vendor.records
    assert [(first.call_id, 1), (first.call_id, 2)] == _ids([first, second])
    assert "redirected" == first.outcome


def test_a_challenge_that_is_answered_is_an_attempt_of_the_same_call(flavour: Flavour) -> None:
    """Authentication flows send the same request again."""
    challenge = {"www-authenticate": 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'}
    vendor = _Answers(flavour, (401, challenge), (200, {}))
    client = vendor.client(auth=flavour.library.DigestAuth("user", "word"))
    flavour.post(client, OPENROUTER, content=b"{}")
    flavour.close(client)
    first, second = vendor.records
    assert [(first.call_id, 1), (first.call_id, 2)] == _ids([first, second])


def test_a_request_that_is_sent_again_is_an_attempt_of_the_same_call(flavour: Flavour) -> None:
    """Who repeats a request object by hand repeats the call."""
    vendor = _Answers(flavour, (500, {}), (500, {}), (200, {}))
    client = vendor.client()
    request = client.build_request("POST", OPENROUTER, content=b"{}")
    for _ in range(3):
        flavour.send(client, request)
    flavour.close(client)
    records = vendor.records
    assert [(records[0].call_id, number) for number in (1, 2, 3)] == _ids(records)


def test_a_counted_retry_belongs_to_the_call_before_it(flavour: Flavour) -> None:
    """The count of an SDK's retries joins a new request to the latest call like it, and to no other."""
    vendor = _Answers(flavour, *[(200, {})] * 5)
    client = vendor.client()
    sent = [(b"{}", "0"), (b"{}", "1"), (b'{"a":1}', "1"), (b'{"a":1}', "0"), (b"{}", "2")]

    async def all_at_once() -> None:
        for content, count in sent:
            await client.post(OPENROUTER, content=content, headers={"X-Stainless-Retry-Count": count})

    if flavour.asynchronous:
        flavour.run(all_at_once())
    else:
        for content, count in sent:
            client.post(OPENROUTER, content=content, headers={"X-Stainless-Retry-Count": count})
    flavour.close(client)
    records = vendor.records
    assert records[0].call_id == records[1].call_id
    assert 4 == len({record.call_id for record in records})
    assert [1, 2, 1, 1, 1] == [record.attempt for record in records]


def test_retries_on_another_thread_or_task_are_not_mixed_up(flavour: Flavour) -> None:
    """Of a hundred concurrent calls that all fail once, each second attempt finds its own first one."""
    first_ids: dict[str, str] = {}
    second_ids: dict[str, str] = {}
    vendor = _Answers(flavour, *[(500, {})] * 200)
    client = vendor.client()
    # The identifier tells whose record it is; the bodies are all the same.
    posts = [(str(number), count) for number in range(100) for count in ("0", "1")]

    async def call(number: str) -> None:
        with bind_caller(caller(number)):
            for count in ("0", "1"):
                await client.post(OPENROUTER, content=b"{}", headers={"x-stainless-retry-count": count})

    async def all_calls() -> None:
        await asyncio.gather(*(call(number) for number, count in posts if count == "0"))

    def call_on_thread(number: str) -> None:
        with bind_caller(caller(number)):
            for count in ("0", "1"):
                client.post(OPENROUTER, content=b"{}", headers={"x-stainless-retry-count": count})

    if flavour.asynchronous:
        flavour.run(all_calls())
    else:
        threads = [threading.Thread(target=call_on_thread, args=(n,)) for n, count in posts if count == "0"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    flavour.close(client)
    for record in vendor.records:
        assert record.caller is not None
        ids = first_ids if record.attempt == 1 else second_ids
        ids[str(record.caller.identifier)] = str(record.call_id)
    assert 100 == len(first_ids) == len(set(first_ids.values()))
    assert first_ids == second_ids


def test_calls_of_two_callers_are_never_attempts_of_one(flavour: Flavour) -> None:
    """Neither a request object that is sent for each of them nor a count that a client sends along joins them."""
    vendor = _Answers(flavour, *[(200, {})] * 4)
    client = vendor.client()
    request = client.build_request("POST", OPENROUTER, content=b"{}", headers={"x-stainless-retry-count": "1"})

    async def both() -> None:
        for _ in range(2):
            for customer in ("acme", "globex"):
                with bind_caller(caller(customer)):
                    sent = client.send(request)
                    if flavour.asynchronous:
                        await sent

    flavour.run(both())
    flavour.close(client)
    assert 4 == len({record.call_id for record in vendor.records})
    assert [1] * 4 == [record.attempt for record in vendor.records]


@pytest.mark.parametrize("flavour", SYNC_FLAVOURS, indirect=True)
def test_a_stream_of_the_apps_own_may_equal_another_and_have_no_hash(flavour: Flavour) -> None:
    """Streams are told apart by what they are, not by what they say of themselves."""
    stream_class: Any = flavour.library.SyncByteStream

    @dataclasses.dataclass
    class Upload(stream_class):
        parts: list[bytes]

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.parts)

    vendor = _Answers(flavour, *[(200, {})] * 4)
    client = vendor.client()
    first, second = (flavour.library.Request("POST", OPENROUTER, stream=Upload([b"{}"])) for _ in range(2))
    with bind_caller(caller()):
        for request in (first, second, first):
            client.send(request)
    # One of which nothing can tell when it ends is sent all the same.
    transport = flavour.transport_class(
        flavour.library.MockTransport(vendor), settings=settings(), deliver=vendor.calls.append
    )
    transport.handle_request(flavour.library.Request("POST", GATEWAY, stream=(b"{}",))).read()
    flavour.close(client)
    one, other, again, untold = vendor.records
    assert one.call_id == again.call_id != other.call_id
    assert [1, 1, 2, 1] == [record.attempt for record in (one, other, again, untold)]


def test_what_was_sent_is_forgotten_with_its_request(flavour: Flavour) -> None:
    """Nothing is kept of a call when its request is gone."""
    vendor = _Answers(flavour, *[(200, {})] * 50)
    client = vendor.client()
    gc.collect()
    before = len(attempts._sent_before)
    for _ in range(50):
        flavour.post(client, OPENROUTER, content=b"{}")
    flavour.close(client)
    gc.collect()
    assert before == len(attempts._sent_before)


def test_a_counted_retry_elsewhere_is_another_call(flavour: Flavour) -> None:
    """SDKs repeat a call where they made it."""
    vendor = _Answers(flavour, *[(200, {})] * 2)
    client = vendor.client()
    with bind_caller(caller()):
        for url, count in ((OPENROUTER, "0"), ("https://llm.example/v1/chat/completions", "1")):
            flavour.post(client, url, content=b"{}", headers={"x-stainless-retry-count": count})
    flavour.close(client)
    first, second = vendor.records
    assert first.call_id != second.call_id


def test_calls_of_nobody_outside_of_any_work_share_no_trace(flavour: Flavour) -> None:
    """Without a request and a block around them, two calls have nothing in common."""
    vendor = _Answers(flavour, (200, {}), (200, {}))
    client = vendor.client()
    for _ in range(2):
        flavour.post(client, OPENROUTER, content=b"{}")
    flavour.close(client)
    first, second = vendor.records
    assert first.trace_id != second.trace_id


def test_a_carried_caller_brings_its_trace_along() -> None:
    """A thread that works for a request is part of the same unit of work."""
    calls: list[Any] = []
    inner = httpx.MockTransport(lambda request: httpx.Response(200, json={}))
    client = httpx.Client(transport=httpx_transport.KwaiTransport(inner, settings=settings(), deliver=calls.append))

    def work() -> None:
        client.post(OPENROUTER, content=b"{}")

    with bind_caller(caller()):
        work()
        thread = threading.Thread(target=carry_caller(work))
        thread.start()
        thread.join(30)
    client.close()
    assert 2 == len(calls)
    assert 1 == len({call.build().trace_id for call in calls})


def test_the_retries_of_openais_sdk_are_attempts_of_one_call(flavour: Flavour) -> None:
    """Through the real SDK: three attempts and three records of one call; the next call is another."""
    soon = {"retry-after-ms": "1"}
    vendor = _Answers(flavour, (503, soon), (429, soon), (200, {}), (200, {}))
    make = openai.AsyncOpenAI if flavour.asynchronous else openai.OpenAI
    sdk = make(api_key="app", base_url="https://openrouter.ai/api/v1", http_client=vendor.client(), max_retries=2)
    with bind_caller(caller()):
        for _ in range(2):
            flavour.run(sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "one"}]))
    flavour.run(sdk.close())
    first, *others = vendor.records
    call_ids = [record.call_id for record in others]
    assert [first.call_id, first.call_id] == call_ids[:2]
    assert first.call_id != call_ids[2]
    assert [1, 2, 3, 1] == [record.attempt for record in vendor.records]
    assert 1 == len({record.trace_id for record in vendor.records})


def test_ids_reach_the_log_and_the_event(caplog: pytest.LogCaptureFixture) -> None:
    """The vendor groups by its own field for traces; call and attempt are metadata."""
    call = CompletedCall(trace_id="t" * 32, call_id="c" * 32, attempt=2, model="m")
    log = json.loads(encode(call))
    assert "t" * 32 == log["trace_unique_id"]
    assert call.record_id == log["span_unique_id"]
    assert "c" * 32 == log["metadata"]["call_id"]
    assert "2" == log["metadata"]["attempt"]
    with caplog.at_level(logging.INFO, "kwai_middleware.calls"):
        emit(call)
    assert f"trace_id={'t' * 32} call_id={'c' * 32} attempt=2" in caplog.text


@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
def test_each_attempt_is_paid_by_the_same_key(flavour: Flavour, url: str) -> None:
    """Of several keys one is chosen for a call; another call may be another key's."""
    keys = tuple(Credential(api_key=Secret(f"sk-or-v1-acme-{number:020}")) for number in range(50))
    vendor = _Answers(flavour, *[(500, {})] * 60)
    client = vendor.client()
    counts = [{"x-stainless-retry-count": str(count)} for _ in range(20) for count in range(3)]

    async def all_at_once() -> None:
        for headers in counts:
            await client.post(url, content=b"{}", headers=headers)

    with bind_caller(caller(credentials=keys)):
        if flavour.asynchronous:
            flavour.run(all_at_once())
        else:
            for headers in counts:
                client.post(url, content=b"{}", headers=headers)
    flavour.close(client)
    paid = [record.key_fingerprint for record in vendor.records]
    assert paid[0::3] == paid[1::3] == paid[2::3]
    assert 1 < len(set(paid))

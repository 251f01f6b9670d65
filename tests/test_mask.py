"""The app's own mask sees every text of content that a record carries, and no record goes out without it."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware import _notices
from kwai_middleware._caller import Caller
from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._delivery.masking import ContentMask
from kwai_middleware._record import CompletedCall
from kwai_middleware._secret import Secret
from tests.support.finished_calls import Pending, completed
from tests.support.logs_api import LogsAPI, logs_api, taken
from tests.support.masks import Redactor, hidden
from tests.support.processes import DEADLINE
from tests.support.vendor_logs import call_with, taken_whole

WORD = "confidential"
CALLER = Caller(
    identifier=f"id {WORD}", name=f"name {WORD}", email=f"{WORD}@acme.example", group=f"group {WORD}",
    thread=f"thread {WORD}", metadata={"note": f"note {WORD}", "seats": 3, "trial": True},
)  # fmt: skip
ARGUMENTS = json.dumps({"street": f"Kärntner Straße {WORD}", "number": 7})
CALL = call_with(
    caller=CALLER,
    model=f"model-{WORD}",
    requested_model=f"requested-{WORD}",
    generation_id=f"gen-{WORD}",
    outcome="error",
    error_code="400",
    error_message=f"error {WORD}",
    messages=json.dumps(
        [
            {"role": "system", "content": f"system {WORD}"},
            {"role": "user", "name": f"name {WORD}", "content": [{"type": "text", "text": f"part {WORD}"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": f"call_{WORD}", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS}}
                ],
            },
            {"role": "tool", "tool_call_id": f"call_{WORD}", "content": f"result {WORD}"},
        ]
    ).encode(),
    completions=(
        {
            "role": "assistant",
            "content": f"answer {WORD}",
            "reasoning": f"reasoning {WORD}",
            "reasoning_details": [{"type": "reasoning.text", "text": f"detail {WORD}"}],
            "tool_calls": [{"id": "call_2", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS}}],
        },
    ),
    parameters={
        "temperature": b"0.5",
        "stop": json.dumps([f"stop {WORD}"]).encode(),
        "tools": json.dumps(
            [{"type": "function", "function": {"name": "f", "description": f"description {WORD}"}}]
        ).encode(),
        "metadata": json.dumps({"type": WORD, "id": WORD, "role": WORD, "n": 12}).encode(),
        "user": json.dumps(f"user {WORD}").encode(),
    },
)  # fmt: skip


@pytest.fixture(autouse=True)
def new_warnings() -> None:
    """Warnings that were given once are given again."""
    for event, about in list(_notices._warned):
        if event == "mask_failed":
            del _notices._warned[event, about]


@pytest.fixture
def entries() -> list[dict[str, Any]]:
    """What arrived at the logs API."""
    return []


@pytest.fixture
def api(entries: list[dict[str, Any]]) -> Iterator[LogsAPI]:
    """A logs API that takes everything."""

    def keep(entry: dict[str, Any], times: int) -> bytes:
        entries.append(entry)
        return taken(entry, times)

    with logs_api(keep) as running:
        yield running


def failures() -> int:
    return _notices.counts().get("mask_failed", 0)


class TestContent:
    """What the function sees, and what becomes of it."""

    def test_it_sees_every_text_of_content(self) -> None:
        """Prompt, answer, arguments, reasoning, parameters, error and metadata are shown, each text by itself."""
        redactor = Redactor(WORD)
        entry = taken_whole(encode(ContentMask(redactor).masked(CALL)))
        readable = '{"street":"Kärntner Straße ' + WORD + '","number":7}'
        assert {
            f"note {WORD}", f"system {WORD}", f"name {WORD}", f"part {WORD}", "f", readable, f"result {WORD}",
            f"answer {WORD}", f"reasoning {WORD}", f"detail {WORD}", f"stop {WORD}", f"description {WORD}", WORD,
            f"user {WORD}", f"error {WORD}",
        } == set(redactor.seen)  # fmt: skip
        assert "error [gone]" == entry["error_message"]
        assert ["stop [gone]"] == entry["stop"]
        assert "note [gone]" == entry["metadata"]["note"]
        assert '"user [gone]"' == entry["metadata"]["request.user"]
        assert {"type": "[gone]", "id": "[gone]", "role": "[gone]", "n": 12} == json.loads(
            entry["metadata"]["request.metadata"]
        )
        assert "reasoning [gone]" == entry["completion_message"]["reasoning_content"]
        assert '{"street":"Kärntner Straße [gone]","number":7}' == entry["tool_calls"][0]["function"]["arguments"]

    def test_it_sees_no_names_and_ids(self) -> None:
        """Who a call was for, which model it was, and what ties tools to their results stays as it is."""
        entry = taken_whole(encode(ContentMask(hidden).masked(CALL)))
        assert CALLER.identifier == entry["customer_identifier"]
        assert (CALLER.name, CALLER.email) == (entry["customer_name"], entry["customer_email"])
        assert (CALLER.group, CALLER.thread) == (entry["group_identifier"], entry["thread_identifier"])
        assert f"model-{WORD}" == entry["model"]
        assert f"gen-{WORD}" == entry["metadata"]["generation_id"]
        assert (0.5, "3", "true") == (entry["temperature"], entry["metadata"]["seats"], entry["metadata"]["trial"])
        messages = entry["prompt_messages"]
        assert ["system", "user", "assistant", "tool"] == [message["role"] for message in messages]
        assert ["hidden"] * 2 == [message["content"] for message in (messages[0], messages[3])]
        assert [{"type": "text", "text": "hidden"}] == messages[1]["content"]
        assert f"call_{WORD}" == messages[3]["tool_call_id"] == messages[2]["tool_calls"][0]["id"]

    def test_where_it_changes_nothing_nothing_changes(self) -> None:
        """A text without anything to mask is recorded as the app wrote it, odd JSON included."""
        call = call_with(
            messages=b'[ {"role":"us\\u0065r", "content":"\\u00fc \\ud83d", "n": 1e999, "n": 12345678901234567890123} ]'
        )
        masked = ContentMask(Redactor.plain).masked(call)
        assert call == masked
        assert call.messages is masked.messages

    @pytest.mark.parametrize(
        ("messages", "expected"),
        [
            (b'[{"content":"\xff word"}]', '[{"content":"\ufffd [gone]"}]'),
            (b"word, no JSON", "[gone], no JSON"),
            (b'[{"content":"\\q word"}]', '[{"content":"\\q [gone]"}]'),
            (b'[{"content":"a\nword"}]', '[{"content":"a\n[gone]"}]'),
            (b'[{"content":"\\"word\\" \\ud83d"}]', '[{"content":"\\"[gone]\\" \\ud83d"}]'),
            (b'{"word":["word",1,"word"],"a" : "word"}', '{"word":["[gone]",1,"[gone]"],"a" : "[gone]"}'),
            (b"[" * 5000 + b'"word"' + b"]" * 5000, "[" * 5000 + '"[gone]"' + "]" * 5000),
        ],
        ids=["no UTF-8", "no JSON", "odd escape", "line end", "lone surrogate", "names", "deep"],
    )
    def test_any_prompt_is_masked(self, messages: bytes, expected: str) -> None:
        """However an app wrote its prompt, no text in it is left out."""
        masked = ContentMask(Redactor()).masked(call_with(messages=messages, input=messages, output=messages))
        assert [expected] * 3 == [(each or b"").decode() for each in (masked.messages, masked.input, masked.output)]

    def test_arguments_that_are_no_json_are_one_text(self) -> None:
        """What a model wrote is masked as it stands, also when it was cut."""
        call = call_with(completions=({"tool_calls": [{"function": {"arguments": '{"a": "\\u00fc word'}}]},))
        [message] = ContentMask(Redactor()).masked(call).completions
        assert '{"a": "\\u00fc [gone]' == message["tool_calls"][0]["function"]["arguments"]

    def test_texts_are_handed_over_as_unicode(self) -> None:
        """The function may encode what it gets, and what it returns may be anything that is a text."""

        class Shouting(str):
            __slots__ = ()

        def mask(text: str) -> str:
            text.encode()
            return Shouting(f"{text}\ud83d")

        call = call_with(error_message="e\udfff", caller=Caller(metadata={"note": "n"}))
        masked = ContentMask(mask).masked(call)
        assert ("e??", "n?") == (masked.error_message, masked.caller and masked.caller.metadata["note"])

    def test_it_cannot_bring_a_key_back(self) -> None:
        """Keys are masked after it, also where what it returns is cut."""
        key = "my-own-key-of-no-shape"
        for size in range(3950, 4001):
            mask = ContentMask(lambda text, size=size: "x" * size + key + " tail" * 10)  # type: ignore[misc]  # a default
            call = call_with(outcome="error", error_message="e", completions=({"content": "c"},))
            body = encode(mask.masked(call, (Secret(key),)), (Secret(key),)).decode()
            assert key[:8] not in body

    def test_a_record_made_by_hand_is_masked(self) -> None:
        """Values that JSON has no room for do not keep the function from the others."""
        call = call_with(completions=({"content": f"answer {WORD}", "odd": object(), "n": float("nan")},))
        [message] = ContentMask(Redactor(WORD)).masked(call).completions
        assert "answer [gone]" == message["content"]

    def test_less_content_is_masked_where_less_is_recorded(self) -> None:
        """With `capture` "metadata" only the app's own metadata is content."""
        redactor = Redactor(WORD)
        ContentMask(redactor).masked(msgspec.structs.replace(CALL, capture="metadata"))
        assert [f"note {WORD}"] == redactor.seen
        assert call_with(caller=None) == ContentMask(Redactor()).masked(call_with(caller=None))

    @given(
        st.recursive(
            st.none() | st.integers() | st.text() | st.just(f"a {WORD} b"),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=10,
        )
    )
    def test_no_nesting_hides_a_text(self, value: Any) -> None:
        """Whatever a message holds, each text of it is masked, and all else is there still."""
        masked = ContentMask(Redactor(WORD)).masked(call_with(messages=json.dumps(value).encode()))
        assert masked.messages is not None
        expected = json.loads(json.dumps(value).replace(f'"a {WORD} b"', '"a [gone] b"'))
        assert expected == json.loads(masked.messages)


class Odd(BaseException):
    """As gevent's and asyncio's own: no Exception."""


def raising(error: BaseException, text: str) -> NoReturn:
    raise error


async def later(text: str) -> str:
    return text


FAILING = {
    "an error": (partial(raising, ValueError(f"cannot mask {WORD}")), "ValueError"),
    "an exit": (partial(raising, SystemExit(1)), "SystemExit"),
    "an interrupt": (partial(raising, KeyboardInterrupt()), "KeyboardInterrupt"),
    "a cancellation": (partial(raising, asyncio.CancelledError()), "CancelledError"),
    "another": (partial(raising, Odd()), "Odd"),
    "nothing": (lambda text: None, "it returned NoneType, no str"),
    "bytes": (lambda text: text.encode(), "it returned bytes, no str"),
    "a coroutine": (lambda text: later(text), "it returned coroutine, no str"),
    "endless": (lambda text: endless(text), "RecursionError"),
}


def endless(text: str) -> str:
    return endless(text)


class TestFailure:
    """A function that fails."""

    @pytest.mark.parametrize("kind", FAILING)
    def test_the_record_goes_out_without_content(
        self, kind: str, api: LogsAPI, entries: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever it raises or returns, the record arrives, with numbers and names only; the failure is counted."""
        mask, reason = FAILING[kind]
        before = failures()
        with Delivery(api.settings(mask=mask)) as delivery:
            for number in range(2):
                assert delivery.submit(
                    Pending(lambda number=number: msgspec.structs.replace(CALL, record_id=str(number)))
                )  # type: ignore[misc]  # a default
            assert delivery.flush(DEADLINE)
            stats = delivery.stats()
        assert ["0", "1"] == [entry["metadata"]["kwai_record_id"] for entry in entries]
        for entry in entries:
            taken_whole(json.dumps(entry).encode())
            assert (0.5, CALLER.identifier, "400") == (
                entry["temperature"], entry["customer_identifier"], entry["metadata"]["error_code"],
            )  # fmt: skip
            carried = {"prompt_messages", "input", "completion_message", "output", "tool_calls", "tools", "stop"}
            assert not {*carried, "error_message"} & entry.keys()
            assert not {"note", "seats", "request.user", "request.metadata"} & entry["metadata"].keys()
        assert (2, 0, {"recording": 0, "shipping": 0}) == (stats.delivered, stats.dropped, stats.restarts)
        assert 2 == failures() - before == stats.notices["mask_failed"] - before
        [warning] = [record.getMessage() for record in caplog.records if "mask" in record.getMessage()]
        assert f"({reason})" in warning
        assert WORD not in warning

    def test_the_warning_names_the_function(self, caplog: pytest.LogCaptureFixture) -> None:
        """Who reads the log knows where to look: functions by their name, objects by their class."""

        class Broken:
            def __call__(self, text: str) -> str:
                raise ValueError

        class Decorated(Broken):
            def __get__(self, instance: object, owner: type | None = None) -> Broken:
                return self

        for mask in (Broken(), partial(raising, ValueError()), Broken().__call__, len, Decorated()):
            ContentMask(mask).masked(CALL)  # type: ignore[arg-type]  # `len` returns no text
        names = [record.getMessage().split("mask function ")[1].split(" failed")[0] for record in caplog.records]
        method = "TestFailure.test_the_warning_names_the_function.<locals>.Broken"
        decorated = method.replace("Broken", "Decorated")
        assert [method, "raising", f"{method}.__call__", "len", decorated] == names

    def test_one_text_that_fails_hides_all(self) -> None:
        """A record is masked whole or has no content."""

        def mask(text: str) -> str:
            if "detail" in text:
                raise ValueError
            return text

        masked = ContentMask(mask).masked(CALL)
        assert ("metadata", None, (), None) == (
            masked.capture, masked.messages, masked.completions, masked.error_message,
        )  # fmt: skip
        assert WORD not in encode(
            msgspec.structs.replace(masked, caller=None, model="m", requested_model="m")
        ).decode().replace(f"gen-{WORD}", "")

    def test_a_record_that_cannot_be_read_has_no_content(self) -> None:
        """What nobody could look into for masking does not leave."""
        before = failures()
        masked = ContentMask(Redactor()).masked(call_with(messages=7, caller=None))
        assert ("metadata", None) == (masked.capture, masked.messages)
        assert 1 == failures() - before


class TestDelivery:
    """The function in the delivery."""

    def test_it_runs_on_the_recording_thread(self, api: LogsAPI, entries: list[dict[str, Any]]) -> None:
        """The app's own threads never wait for it; all the same each record is masked before it is spooled."""
        threads: set[str] = set()

        def mask(text: str) -> str:
            threads.add(threading.current_thread().name)
            return text.replace("hi", "[gone]")

        with Delivery(api.settings(mask=mask)) as delivery:
            delivery.submit(completed())
            assert delivery.flush(DEADLINE)
        assert {"kwai-recording"} == threads
        assert [{"role": "user", "content": "[gone]"}] == entries[0]["prompt_messages"]

    def test_a_record_that_goes_nowhere_is_not_masked(self, api: LogsAPI, entries: list[dict[str, Any]]) -> None:
        """The event has no content, so for a call that is only that the function is not called."""
        redactor = Redactor()
        with Delivery(api.settings(mask=redactor)) as delivery:
            delivery.submit(completed(route="gateway"))
            delivery.submit(completed(capture="none"))
            assert delivery.flush(DEADLINE)
        assert [] == redactor.seen
        assert [] == entries

    def test_a_model_that_it_asks_is_not_recorded(self, api: LogsAPI, entries: list[dict[str, Any]]) -> None:
        """A mask that asks a model would make a record with each record, for ever."""
        released: list[Pending] = []

        def mask(text: str) -> str:
            call = Pending()
            assert not asyncio.run(asyncio.to_thread(delivery.submit, call))
            released.append(call)
            return text

        before = _notices.counts().get("called_by_mask", 0)
        with Delivery(api.settings(mask=mask)) as delivery:
            assert delivery.submit(completed())
            assert delivery.flush(DEADLINE)
            stats = delivery.stats()
        assert 1 == len(entries) == stats.accepted == stats.delivered
        assert len(released) == sum(call.released for call in released) == stats.notices["called_by_mask"] - before > 0

    def test_the_event_has_no_text_that_it_masks(self, caplog: pytest.LogCaptureFixture, api: LogsAPI) -> None:
        """The words of an error are in the record, masked, and not in the event."""
        caplog.set_level(logging.INFO)
        with Delivery(api.settings(mask=Redactor(WORD))) as delivery:
            delivery.submit(
                msgspec.structs.replace(CALL, caller=None, model="m", requested_model="m", generation_id="g")
            )
            assert delivery.flush(DEADLINE)
        assert "llm_call" in caplog.text
        assert WORD not in caplog.text


def test_a_mask_has_no_part_in_what_is_no_content() -> None:
    """A record of numbers alone is not changed."""
    assert CompletedCall(record_id="r") == ContentMask(hidden).masked(CompletedCall(record_id="r"))

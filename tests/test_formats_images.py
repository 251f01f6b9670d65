"""Pictures drawn after a prompt: what is read out of requests and answers, and that a log tells of them."""

from __future__ import annotations

import base64
import hashlib
import json
from itertools import accumulate
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._delivery.media import replaced
from kwai_middleware._outbound.formats import FORMATS, Answer, Failure, Received, Request, Tokens, images
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._outbound.sent_bodies import Sent
from kwai_middleware._record import CompletedCall
from tests.support.observations import JSON, STREAM, observed, stream_of
from tests.support.vendor_logs import logged, taken_whole

ENDPOINT = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/images", "images")
EDITS = Endpoint("direct", "openai", "api.openai.com", "/v1/images/edits", "images")
REQUEST = {"model": "m", "prompt": "A cat.", "n": 1, "size": "1x1"}
CONTENT = bytes(range(256)) * 3
B64 = base64.b64encode(CONTENT).decode()
TOLD = f"768 bytes, sha256:{hashlib.sha256(CONTENT).hexdigest()}]"
USAGE = {
    "prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12, "cost": 0.25, "is_byok": True,
    "cost_details": {"upstream_inference_cost": 1}, "completion_tokens_details": {"image_tokens": 9},
}  # fmt: skip
USAGE_OF_OPENAI = {
    "input_tokens": 3, "output_tokens": 9, "total_tokens": 12, "input_tokens_details": {"text_tokens": 3},
}  # fmt: skip
TOKENS = Tokens(prompt=3, completion=9, total=12)
ANSWER = {"created": 1, "data": [{"b64_json": B64, "media_type": "image/webp"}], "usage": USAGE}


def partial(index: int = 0) -> dict[str, Any]:
    return {"type": "image_generation.partial_image", "b64_json": B64, "partial_image_index": index}


def drawn(**members: Any) -> dict[str, Any]:
    return {"type": "image_generation.completed", "created": 1, "b64_json": B64, "media_type": "image/png", **members}


EVENTS: list[dict[str, Any] | str] = [partial(0), partial(1), drawn(usage=USAGE), "[DONE]"]


def unary(answer: Any = ANSWER) -> Answer:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return images.answer(Received((body,), streamed=False), Request())


def streamed(*events: dict[str, Any] | str, asked: int = 1) -> Answer:
    return images.answer(Received((stream_of(*events),), streamed=True), Request(choices=asked))


def recorded(body: bytes | list[bytes], **members: Any) -> CompletedCall:
    """The record of one call, and with it a log that every type of the vendor takes whole."""
    call = completed(observed(body, **({"request": REQUEST, "endpoint": ENDPOINT} | members)))
    assert "log_type" not in logged(replaced(call))
    return call


def test_images_are_a_format() -> None:
    """Images are found by the name that endpoints use."""
    assert FORMATS["images"] is images  # type: ignore[comparison-overlap]  # a module is a Format by its functions


class TestRequests:
    def test_the_prompt_is_kept_as_it_is_written(self) -> None:
        """The prompt is the input, what else is asked for are parameters."""
        read = images.request(json.dumps({**REQUEST, "stream": True, "n": 2}).encode())

        assert ("m", b'"A cat."', None, True, 2) == (read.model, read.input, read.messages, read.stream, read.choices)
        assert {"n": b"2", "size": b'"1x1"'} == read.parameters

    @pytest.mark.parametrize("name", ["input_references", "images"])
    def test_pictures_to_go_by_are_told_of(self, name: str) -> None:
        """Pictures beside the prompt are part of the input; the log tells of them."""
        url = f"data:image/png;base64,{B64}"
        request = {**REQUEST, name: [{"type": "image_url", "image_url": {"url": url}}]}

        call = recorded(json.dumps(ANSWER).encode(), request=request)

        expected = [{"type": "image_url", "image_url": {"url": f"[image/png, {TOLD}"}}]
        assert {"prompt": "A cat.", name: expected} == json.loads(logged(replaced(call))["input"])
        assert {name: []} == json.loads(images.request(json.dumps({name: []}).encode()).input or b"")

    @pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"--form\r\nContent-Disposition: form-data\r\n\r\n"])
    def test_what_is_no_json_object_is_nothing(self, body: bytes) -> None:
        """A form with a picture, or nothing at all, is a request still."""
        assert Request() == images.request(body)

    def test_odd_counts_are_one(self) -> None:
        """A number of pictures that is none asks for one."""
        assert 1 == images.request(b'{"n": null}').choices


class TestAnswers:
    def test_an_answer_is_read(self) -> None:
        """The pictures are kept as they came, and the usage of either naming is counted."""
        answer = unary()

        assert (ANSWER["data"], USAGE, TOKENS) == (json.loads(answer.output or b""), answer.usage, answer.tokens)
        assert (len(json.dumps(ANSWER)), None, ()) == (answer.finished, answer.first_content, answer.completions)
        assert TOKENS == unary({**ANSWER, "usage": USAGE_OF_OPENAI}).tokens

    def test_a_stream_is_the_same_answer_as_a_whole_one(self) -> None:
        """Only what is drawn is kept, with the time of the first that was to be seen."""
        sizes = list(accumulate(len(stream_of(event)) for event in EVENTS))
        expected = Answer(
            output=json.dumps([{"b64_json": B64, "media_type": "image/png"}], separators=(",", ":")).encode(),
            usage=USAGE,
            tokens=TOKENS,
            first_content=sizes[0],
            finished=sizes[2],
            ends_with_body=True,
        )

        assert expected == streamed(*EVENTS)
        assert sizes[2] - sizes[1] == streamed(*EVENTS[2:]).first_content

    @pytest.mark.parametrize(
        ("events", "asked", "expected"),
        [
            pytest.param([drawn(), drawn()], 2, 1, id="the last of two"),
            pytest.param([drawn(), drawn()], 1, 1, id="one more than asked for"),
            pytest.param([drawn(), "[DONE]"], 2, 1, id="the mark"),
            pytest.param([drawn()], 2, None, id="one of two"),
            pytest.param([partial()], 1, None, id="none yet"),
            pytest.param([partial(), {"type": "error", "error": {"message": "m"}}, drawn()], 1, 1, id="an error"),
            pytest.param([{**drawn(), "type": "image_edit.completed"}], 1, 0, id="an edit"),
        ],
    )
    def test_when_a_stream_is_over(self, events: list[Any], asked: int, expected: int | None) -> None:
        """A stream is over with the last picture that was asked for, with its mark, or with an error."""
        size = None if expected is None else len(stream_of(*events[: expected + 1]))

        assert size == streamed(*events, asked=asked).finished

    @pytest.mark.parametrize(
        ("event", "counts"),
        [
            pytest.param({"type": "image_generation.text_chunk", "text": "<svg", "phase": "content"}, True, id="text"),
            pytest.param({"type": "image_generation.text_chunk", "text": ""}, False, id="no text"),
            pytest.param({"type": "image_edit.partial_image"}, True, id="an edit"),
            pytest.param({"type": "image_generation.started"}, False, id="another event"),
        ],
    )
    def test_what_counts_as_first_content(self, event: dict[str, Any], counts: bool) -> None:
        """A part of a picture is the first to be seen, as text too."""
        body = b": OPENROUTER PROCESSING\n\n" + stream_of(event)

        answer = images.answer(Received((body, stream_of({"type": "x"})), streamed=True), Request())

        assert (len(body) if counts else None, None) == (answer.first_content, answer.output)

    def test_a_call_is_logged_with_what_its_pictures_are(self) -> None:
        """In place of a picture stand its type, size and digest; the prompt and all else are there."""
        data = [*ANSWER["data"], {"b64_json": B64, "revised_prompt": "A fat cat."}, {"url": "https://x.example/1.png"}]
        call = recorded(json.dumps({**ANSWER, "data": data}).encode())

        log = logged(replaced(call))
        assert "A cat." == log["input"]
        assert [
            {"b64_json": f"[image/webp, {TOLD}", "media_type": "image/webp"},
            {"b64_json": f"[image, {TOLD}", "revised_prompt": "A fat cat."},
            {"url": "https://x.example/1.png"},
        ] == json.loads(log["output"])
        assert (1.25, 0.25, True, 3, 9) == (
            call.cost, call.reported_cost, call.is_byok, log["prompt_tokens"], log["completion_tokens"],
        )  # fmt: skip
        assert B64[:256] not in encode(replaced(call)).decode()

    def test_pictures_may_be_kept(self) -> None:
        """A record that is not told to leave media out has them."""
        assert B64 == json.loads(taken_whole(encode(recorded(json.dumps(ANSWER).encode())))["output"])[0]["b64_json"]

    def test_a_stream_is_logged_with_what_was_drawn(self) -> None:
        """A streamed call has its first sight's time, and no partial picture in its log."""
        events = [stream_of({**event, "output_format": "jpeg", "media_type": None}) for event in EVENTS[:3]]

        call = recorded(events, headers=STREAM, ending=Ending.CLOSED)

        [picture] = json.loads(logged(replaced(call))["output"])
        assert ("complete", 0.01, f"[image/jpeg, {TOLD}") == (
            call.outcome, call.time_to_first_token, picture["b64_json"],
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("members", "expected"),
        [
            pytest.param({"error": {"code": 502, "message": "m"}}, Failure("502", "m"), id="top level"),
            pytest.param(
                {"type": "error", "error": {"message": "m", "code": None, "type": "server_error"}},
                Failure("server_error", "m", "server_error"), id="as an event",
            ),
        ],
    )  # fmt: skip
    def test_an_error_inside_a_200_is_told(self, members: dict[str, Any], expected: Failure) -> None:
        """At once or in the middle of a stream, an error is the outcome; what was drawn before it is kept."""
        broken = streamed(drawn(), members, drawn(), asked=3)

        assert [expected, expected, None] == [unary(members).failure, broken.failure, unary(members).output]
        assert 1 == len(json.loads(broken.output or b""))
        assert "error" == recorded(json.dumps(members).encode()).outcome

    @pytest.mark.parametrize(
        ("count", "asked", "ending", "expected"),
        [
            pytest.param(3, 1, Ending.CLOSED, "complete", id="whole"),
            pytest.param(3, 2, Ending.END, "complete", id="fewer than asked for"),
            pytest.param(3, 2, Ending.CLOSED, "cancelled", id="left before the second"),
            pytest.param(2, 1, Ending.END, "incomplete", id="cut"),
            pytest.param(2, 1, Ending.TIMEOUT, "timeout", id="too late"),
        ],
    )
    def test_how_a_stream_ended(self, count: int, asked: int, ending: Ending, expected: str) -> None:
        """Until all pictures are drawn, or the connection ends with any, a stream is what its way of ending says."""
        events = [stream_of(event) for event in EVENTS[:count]]

        call = recorded(events, headers=STREAM, ending=ending, request={**REQUEST, "n": asked})

        assert expected == call.outcome

    def test_pictures_are_bounded(self) -> None:
        """A server that invents pictures without end cannot fill the memory."""
        answers = unary({"data": [{}] * 2000}), streamed(*[drawn(b64_json="")] * 2000)

        assert [1000, 1000] == [len(json.loads(each.output or b"")) for each in answers]

    def test_odd_members_cost_no_more_than_themselves(self) -> None:
        """What is no picture is kept as it came, as far as JSON has room for it."""
        data = [7, {"b64_json": 5}, {"b64_json": None}, {"b64_json": 'a"b'}, {"revised_prompt": "\ud83d", "x": [1]}]

        assert [
            {},
            {"b64_json": 5},
            {"b64_json": None},
            {"b64_json": 'a"b'},
            {"revised_prompt": "\ufffd", "x": [1]},
        ] == (json.loads(unary({"data": data}).output or b""))
        assert [None, None] == [unary({"data": {}}).output, streamed("no json", "[]", {"type": 7}).output]

    @pytest.mark.parametrize(
        ("plain", "odd"),
        [
            pytest.param("/", "\\/", id="slashes"),
            pytest.param("A", "\\u0041", id="characters by number"),
            pytest.param(B64[76:80], "\\r\\n" + B64[76:80], id="lines"),
        ],
    )
    def test_base64_of_another_spelling_is_told_of(self, plain: str, odd: str) -> None:
        """However a server spells a picture, what it is stands in its place."""
        assert plain in B64
        body = json.dumps(ANSWER).replace(B64, B64.replace(plain, odd))
        assert body != json.dumps(ANSWER)

        call = recorded(body.encode())

        assert f"[image/webp, {TOLD}" == json.loads(logged(replaced(call))["output"])[0]["b64_json"]

    @pytest.mark.parametrize("before", ["", "A"])
    def test_escaped_slashes_across_windows(self, before: str) -> None:
        """A slash whose backslash is the last sign of a window is a slash, and nothing is lost beside it."""
        picture = before + "/" * 40_000

        answer = unary(json.dumps({"data": [{"b64_json": picture}]}).replace("/", "\\/").encode())

        assert b'[{"b64_json":"%b"}]' % picture.encode() == answer.output

    @pytest.mark.parametrize(("text", "expected"), [(b"a \xff", "a \ufffd"), (b"\\ud83d", "\ufffd"), (b"\\q", None)])
    def test_a_picture_that_is_no_text_is_mended(self, text: bytes, expected: str | None) -> None:
        """What stands where a picture should be leaves JSON that any parser takes."""
        assert [{"b64_json": expected}] == json.loads(unary(b'{"data":[{"b64_json":"%b"}]}' % text).output or b"")


class TestShortenedAnswers:
    def test_what_is_left_of_a_picture_is_not_kept(self) -> None:
        """A picture that was cut is none: a mark stands for it, and what came before it is there."""
        body = json.dumps({**ANSWER, "data": [*ANSWER["data"], *ANSWER["data"]]}).encode()
        place = body.rindex(B64.encode()) + 300

        head = unary(body[:place])
        both = images.answer(Received((body[:place], body[place + 300 :]), streamed=False), Request())

        assert [*ANSWER["data"], {"b64_json": " [...] "}] == json.loads(head.output or b"")
        assert (head.output, USAGE, None) == (both.output, both.usage, both.finished)

    @pytest.mark.parametrize(("ending", "expected"), [(Ending.END, "complete"), (Ending.CLOSED, "cancelled")])
    def test_a_stream_whose_picture_was_too_large_has_its_usage(self, ending: Ending, expected: str) -> None:
        """The end of an event that is not there any more still says what it cost."""
        events = [stream_of(partial()), stream_of(drawn())[:400], stream_of(drawn(usage=USAGE))[500:]]

        call = recorded(events, headers=STREAM, gap_after=2, ending=ending)

        assert (expected, True, 0.25, None) == (call.outcome, call.truncated, call.reported_cost, call.output)

    def test_usage_that_was_told_is_not_looked_for_again(self) -> None:
        """What stands in an event counts; a text in the end is no better."""
        parts = (stream_of(drawn(usage={"cost": 1})), b'"usage":{"cost":2}')

        assert {"cost": 1} == images.answer(Received(parts, streamed=True), Request()).usage

    @pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"data": [{"b64_json": "AA'])
    def test_what_is_no_whole_object_is_an_error(self, body: bytes) -> None:
        """Only a whole JSON object is a whole answer."""
        assert ("error", "invalid_answer") == (recorded(body).outcome, recorded(body).error_code)


MEMBERS = st.sampled_from(
    ["data", "b64_json", "url", "media_type", "usage", "error", "type", "text", "output_format", "n"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.text(st.characters(), max_size=5) | st.just(B64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=4),
    max_leaves=20,
)
KINDS = st.sampled_from(["image_generation.completed", "image_generation.partial_image", "error"])
PICTURES = st.fixed_dictionaries(
    {"type": KINDS | VALUES}, optional={"b64_json": st.just(B64) | VALUES, "usage": VALUES}
)


@given(st.lists(PICTURES | VALUES, max_size=4), st.sampled_from([None, 0, 1]), st.integers(0, 600))
def test_any_json_makes_a_log(events: list[Any], gap: int | None, size: int) -> None:
    """Members in any place and of any type, asked or answered, whole or not: the vendor's types take the log whole."""
    chunks = [stream_of(json.dumps(event)) for event in events]
    whole = json.dumps({"data": events, "prompt": events}).encode()

    recorded(chunks, headers=STREAM, gap_after=None if gap is None else min(gap, len(chunks)))
    recorded(whole, request=whole)
    recorded([whole[:size], whole[size + 20 :]], gap_after=1)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_make_a_log(body: bytes, is_stream: bool) -> None:
    """Whatever comes as an answer, reading it does not raise."""
    recorded(body, request=body, headers=STREAM if is_stream else JSON)


def form_of(fields: Any, files: Any) -> bytes:
    return httpx.Request("POST", "http://x", data=fields, files=files).read()


def test_a_form_with_pictures_to_go_by() -> None:
    """An edit is asked for in a form: the log has the prompt, the fields, and what the pictures are."""
    files = [("image[]", ("a.png", CONTENT, "image/png")), ("image[]", ("b.webp", b"RIFF", "image/webp"))]
    files.append(("mask", ("mask.png", b"PNG", "image/png")))
    form = form_of({"model": "m", "prompt": "A hat.", "n": "2", "stream": "true", "size": "1x1"}, files)
    request = images.form(form, form[-10:], len(form))
    assert ("m", True, 2) == (request.model, request.stream, request.choices)
    assert {"n": b"2", "size": b'"1x1"'} == request.parameters
    told = [
        "[file a.png, image/png, 768 bytes]",
        "[file b.webp, image/webp, 4 bytes]",
        "[file mask.png, image/png, 3 bytes]",
    ]
    assert {"prompt": "A hat.", "images": told} == json.loads(request.input or b"")
    sent = Sent(form, form[-10:], len(form), True)
    answer = [stream_of({**drawn(usage=USAGE), "type": "image_edit.completed"}) for _ in range(2)]
    call = completed(observed(answer, endpoint=EDITS, headers=STREAM, request=b"", request_sent=sent))
    assert ("complete", "m", 0.25 + 1) == (call.outcome, call.requested_model, call.cost)
    assert B64 not in json.dumps(logged(replaced(call)))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (b'{"model":"m","prompt":"A hat."}', Request(model="m", input=b'"A hat."')),
        (b"neither", Request()),
        (form_of({"n": "many"}, {"image": ("a.png", b"PNG", "image/png")}), None),
        (form_of({"model": ["m", "other"]}, {"image": ("a.png", b"PNG", "image/png")}), None),
    ],
    ids=["JSON", "no form", "no number", "a field twice"],
)
def test_odd_forms(form: bytes, expected: Request | None) -> None:
    """What is JSON is read as that, what is neither as nothing; of a field that stands twice the first one counts."""
    request = images.form(form, form[-4:], len(form))
    assert request == expected if expected is not None else (1, '{"images":["[file a.png, image/png, 3 bytes]"]}') == (
        request.choices, (request.input or b"").decode(),
    )  # fmt: skip


def test_the_beginning_of_what_is_no_form() -> None:
    """Of JSON that was not kept whole nothing is read."""
    assert Request() == images.form(b'{"model":"m"', b"}", 1000)

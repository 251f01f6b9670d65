"""Embeddings: what is read out of requests and answers, and that no vector is in a record."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._outbound.formats import FORMATS, Answer, Failure, Received, Request, Tokens, embeddings
from kwai_middleware._outbound.formats.long_values import cut
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._pace import WINDOW
from kwai_middleware._record import CompletedCall
from tests.support.observations import JSON, STREAM, observed, stream_of
from tests.support.vendor_logs import logged

ENDPOINT = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/embeddings", "embeddings")
REQUEST = {"model": "m", "input": ["one", "two"], "dimensions": 3, "encoding_format": "float"}
USAGE = {"prompt_tokens": 4, "total_tokens": 4, "cost": 0.25}


def base64_of(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def with_vectors(*vectors: Any, **members: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "embedding": vector, "index": index} for index, vector in enumerate(vectors)]
    return {"id": "gen-1", "object": "list", "data": data, "model": "m-2", "usage": USAGE, **members}


ANSWER = with_vectors([0.1, -2e-3, 3], [0.4, 0.5, 6])


def answered(answer: Any, **options: Any) -> Answer:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return embeddings.answer(Received((body,), streamed=False, **options), Request())


def told(answer: Any) -> Any:
    return json.loads(answered(answer).output or b"null")


def recorded(body: bytes | list[bytes], **members: Any) -> CompletedCall:
    """The record of one call, and with it a log that every type of the vendor takes whole."""
    call = completed(observed(body, **({"request": REQUEST, "endpoint": ENDPOINT} | members)))
    assert "embedding" == logged(call)["log_type"]
    return call


def test_embeddings_are_a_format() -> None:
    """Embeddings are found by the name that endpoints use."""
    assert FORMATS["embeddings"] is embeddings  # type: ignore[comparison-overlap]  # a module is a Format


@pytest.mark.parametrize(
    "given_",
    [
        pytest.param("one", id="a text"),
        pytest.param(["one", "two"], id="texts"),
        pytest.param([1, 2, 3], id="tokens"),
        pytest.param([{"content": [{"type": "image_url", "image_url": {"url": "u"}}]}], id="a picture"),
    ],
)
def test_what_is_embedded_is_kept_as_it_is_written(given_: Any) -> None:
    """Texts, tokens and pictures are the log's input."""
    read = embeddings.request(json.dumps({**REQUEST, "input": given_}).encode())

    assert ("m", json.dumps(given_).encode(), None) == (read.model, read.input, read.messages)
    assert {"dimensions": b"3", "encoding_format": b'"float"'} == read.parameters
    assert Request() == embeddings.request(b"{}")


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        pytest.param([[0.1] * 1536] * 2, "[2 embeddings of 1536 dimensions]", id="numbers"),
        pytest.param([[1]], "[1 embedding of 1 dimensions]", id="one"),
        pytest.param([[]], "[1 embedding of 0 dimensions]", id="an empty one"),
        pytest.param([], "[0 embeddings]", id="none"),
        pytest.param([base64_of(1, 2, 3)] * 3, "[3 embeddings of 3 dimensions]", id="base64"),
        pytest.param([base64_of(1, 2), base64_of(1, 2, 3, 4)], "[2 embeddings of 2 to 4 dimensions]", id="sizes"),
        pytest.param([[1, 2], base64_of(1, 2)], "[2 embeddings of 2 dimensions]", id="both"),
        pytest.param([[[1, 2, 3], [4, 5, 6]]], "[1 embedding of 2 dimensions]", id="lists in a list"),
        pytest.param([None, {}, 7, -1, True], "[0 embeddings]", id="no vectors"),
    ],
)  # fmt: skip
def test_vectors_are_told_of(vectors: list[Any], expected: str) -> None:
    """How many there are, and of how many numbers, is the answer in a record."""
    assert expected == told(with_vectors(*vectors))
    assert expected == told(json.dumps(with_vectors(*vectors), indent=2).encode())


@pytest.mark.parametrize("size", range(1, 12))
def test_base64_of_any_size_is_measured(size: int) -> None:
    """However base64 ends, there are four bytes to a number; also where a server writes slashes its own way."""
    vector = base64.b64encode(b"\xff" * 4 * size).decode()
    assert "/" in vector
    text = json.dumps(with_vectors(vector))
    assert f"[1 embedding of {size} dimensions]" == told(text.encode()) == told(text.replace("/", "\\/").encode())


def test_an_answer_is_read() -> None:
    """Names and usage come from their places; the answer was over when it had come."""
    expected = Answer(
        model="m-2",
        generation_id="gen-1",
        output=b'"[2 embeddings of 3 dimensions]"',
        usage=USAGE,
        tokens=Tokens(prompt=4, total=4),
        finished=len(json.dumps(ANSWER)),
    )

    assert expected == answered(ANSWER)


def test_a_call_is_logged_without_its_vectors() -> None:
    """What was embedded is there, and what for; of the vectors there is no number."""
    call = recorded(json.dumps(ANSWER).encode())

    log = logged(call)
    assert ('["one", "two"]', "[2 embeddings of 3 dimensions]") == (log["input"], log["output"])
    assert (3, "float", 4, 0.25, 0.25) == (
        log["dimensions"], log["encoding_format"], log["prompt_tokens"], log["cost"], call.reported_cost,
    )  # fmt: skip
    assert "embedding" not in log
    assert "-2e-3" not in json.dumps(log)
    assert ("complete", None, False) == (call.outcome, call.time_to_first_token, call.stream)


@pytest.mark.parametrize("vectors", [[[0.5] * 100_000] * 2, [base64_of(*[0.5] * 100_000)] * 2], ids=["list", "base64"])
def test_long_vectors_are_cut_out_whole(vectors: list[Any]) -> None:
    """Vectors across many windows are measured; all that stands beside them is there."""
    answer = answered(with_vectors(*vectors, usage={"prompt_tokens": 9}))

    assert (b'"[2 embeddings of 100000 dimensions]"', 9) == (answer.output, answer.tokens.prompt)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param({"error": {"code": 429, "message": "m"}}, Failure("429", "m"), id="top level"),
        pytest.param(
            {"error": {"message": "m", "metadata": {"provider_name": "P"}}}, Failure(None, "m"), id="a provider's"
        ),
        pytest.param({"error": None, "data": []}, None, id="none"),
    ],
)
def test_an_error_inside_a_200_is_told(answer: dict[str, Any], expected: Failure | None) -> None:
    """A 200 may carry an error in place of vectors; then there are none to tell of."""
    assert (expected, expected is not None) == (answered(answer).failure, answered(answer).output is None)
    assert ("complete" if expected is None else "error") == recorded(json.dumps(answer).encode()).outcome


def test_what_no_vendor_streams_is_read_as_far_as_it_can_be() -> None:
    """Should an answer come as events, errors and usage in them count, and the end of the connection is its end."""
    call = recorded([stream_of({"usage": USAGE}), stream_of({"data": [{"embedding": [1, 2]}]})], headers=STREAM)
    broken = recorded([b": WAITING\n\n", stream_of({"error": {"code": 502}}, {"model": "m-3"})], headers=STREAM)
    marked = embeddings.answer(Received((stream_of("[DONE]"), b"data: {}\n\n"), streamed=True), Request())

    assert ("complete", 0.25, None) == (call.outcome, call.reported_cost, call.output)
    assert ("error", "502", "m") == (broken.outcome, broken.error_code, broken.model)
    assert len(stream_of("[DONE]")) == marked.finished
    assert isinstance(embeddings.answer(Received((b"data: {}\n\n",) * 2, streamed=True), Request()), Answer)


class TestShortenedAnswers:
    BODY = json.dumps(ANSWER).encode()

    @pytest.mark.parametrize(
        ("mark", "expected"),
        [
            pytest.param(b"0.4", "[at least 1 embedding of 3 dimensions]", id="within the second vector"),
            pytest.param(b"0.1", "[at least 0 embeddings]", id="within the first vector"),
            pytest.param(b'"usage"', "[at least 2 embeddings of 3 dimensions]", id="behind all vectors"),
            pytest.param(b'"data"', None, id="before them"),
        ],
    )
    def test_what_came_is_told_of(self, mark: bytes, expected: str | None) -> None:
        """Of an answer that was cut, the vectors that came are counted; behind a gap its usage is found."""
        head, _, rest = self.BODY.partition(mark)
        gapped = embeddings.answer(Received((head, mark + rest), streamed=False), Request())

        assert expected == told(head) == json.loads(gapped.output or b"null")
        assert ("gen-1", None) == (answered(head).generation_id, answered(head).finished)
        assert (USAGE, None) == (gapped.usage, gapped.finished)

    @pytest.mark.parametrize(("ending", "expected"), [(Ending.END, "complete"), (Ending.CLOSED, "cancelled")])
    def test_the_record_says_so(self, ending: Ending, expected: str) -> None:
        """A shortened answer is complete when HTTP says that all of it came."""
        call = recorded([self.BODY[:80], self.BODY[-120:]], gap_after=1, ending=ending)

        assert (expected, True, 0.25) == (call.outcome, call.truncated, call.cost)

    @pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"data": [{"embedding": [1, 2'])
    def test_what_is_no_whole_object_is_an_error(self, body: bytes) -> None:
        """Only a whole JSON object is a whole answer."""
        assert ("error", "invalid_answer") == (recorded(body).outcome, recorded(body).error_code)


class TestCutting:
    @pytest.mark.parametrize(
        ("body", "rest", "values"),
        [
            pytest.param(b'{"e":[1,2],"f":[3]}', b'{"e":0,"f":[3]}', [b"[1,2]"], id="a list"),
            pytest.param(b'{"e" :\n "AA","e":[]}', b'{"e" :\n 0,"e":1}', [b'"AA"', b"[]"], id="two, with blanks"),
            pytest.param(b'{"e":[{"e":"A"}],"e":"B"}', b'{"e":0,"e":1}', [b'[{"e":"A"}]', b'"B"'], id="in another"),
            pytest.param(b'{"e":[1,2', b'{"e":" [...] "', [], id="without an end"),
            pytest.param(b'{"a":"e","x":"\\"e\\":[1]","e":null}', None, [], id="nothing that is one"),
            pytest.param(b"", None, [], id="nothing"),
        ],
    )
    def test_values_of_one_member_are_cut_out(self, body: bytes, rest: bytes | None, values: list[bytes]) -> None:
        """Texts and lists leave their number in their places; without any the body is the very same."""
        found = cut(body, "e")

        assert (body if rest is None else rest, values) == (found.rest, [bytes(value) for value in found.values])
        assert (found.rest is body) == (rest is None)

    @pytest.mark.parametrize("before", range(WINDOW - 14, WINDOW + 2))
    def test_members_across_windows_are_found(self, before: int) -> None:
        """Wherever a member begins and ends, it is cut out once."""
        long = "A" * (2 * WINDOW + before)
        value = ["x" * before, {"e": long}, {"e": "B", "f": 1}]

        found = cut(json.dumps(value).encode(), "e")

        assert ["x" * before, {"e": 0}, {"e": 1, "f": 1}] == json.loads(found.rest)
        assert [long, "B"] == [json.loads(bytes(each)) for each in found.values]

    @pytest.mark.parametrize(
        "unit", [b'{"embedding":[', b'"embedding":"', b'"embedding"', b"[", b'"', b'{"embedding":[]},']
    )
    def test_megabytes_of_nonsense_take_linear_time(self, unit: bytes) -> None:
        """Beginnings without end come to one; in quadratic time this test would not."""
        body = b'{"data":[' + unit * (500_000 // len(unit))

        assert answered(body).finished is None
        assert isinstance(embeddings.answer(Received((body, body), streamed=False), Request()), Answer)


MEMBERS = st.sampled_from(["data", "embedding", "index", "usage", "prompt_tokens", "error", "model", "id", "input"])
VECTORS = st.lists(st.floats() | st.integers(), max_size=4) | st.text(st.characters(), max_size=8) | st.just("AAA=")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.text(st.sampled_from('ab"\\[]{}/'), max_size=5) | VECTORS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=5),
    max_leaves=25,
)
ITEMS = st.lists(st.fixed_dictionaries({"embedding": VECTORS | VALUES}), max_size=3)


@given(st.dictionaries(MEMBERS, ITEMS | VALUES, max_size=5), st.integers(0, 200))
@example({"data": [{"embedding": 'a"]'}], "model": "m"}, 0)
@example({"data": [{"embedding": ["]", 1]}], "model": "m"}, 0)
def test_any_answer_makes_a_log(answer: dict[str, Any], size: int) -> None:
    """Whatever stands where vectors should, the rest is read as if nothing had been cut out, and the log is one."""
    body = json.dumps(answer).encode()

    read = answered(body)
    assert len(body) == read.finished
    assert (isinstance(answer.get("data"), list)) == (read.output is not None)
    recorded(body, request=body)
    recorded(body[:size])
    recorded([body[:size], body[size + 9 :]], gap_after=1)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_make_a_log(body: bytes, is_stream: bool) -> None:
    """Whatever comes as an answer, reading it does not raise."""
    recorded(body, request=body, headers=STREAM if is_stream else JSON)

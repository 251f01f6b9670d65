"""Pictures, sounds and files in prompts and answers are told of in a record, not kept in it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._delivery import log_entry
from kwai_middleware._delivery.media import replaced, without_media
from kwai_middleware._pace import WINDOW
from kwai_middleware._secret import Secret
from tests.support.finished_calls import completed

CONTENT = bytes(range(256)) * 3
B64 = base64.b64encode(CONTENT).decode()
DIGEST = f"768 bytes, sha256:{hashlib.sha256(CONTENT).hexdigest()}]"
PNG = f"data:image/png;base64,{B64}"


def compact(value: Any) -> bytes:
    """JSON as SDKs write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


MEDIA = [
    pytest.param({"type": "image_url", "image_url": {"url": PNG, "detail": "x"}}, PNG, "image/png", id="picture"),
    pytest.param({"type": "input_image", "image_url": PNG}, PNG, "image/png", id="picture of responses"),
    pytest.param({"type": "video_url", "video_url": {"url": PNG}}, PNG, "image/png", id="video"),
    pytest.param({"type": "input_audio", "input_audio": {"data": B64, "format": "wav"}}, B64, "audio/wav", id="sound"),
    pytest.param({"type": "input_audio", "input_audio": {"format": "mp3", "data": B64}}, B64, "audio/mp3", id="mp3"),
    pytest.param({"type": "file", "file": {"filename": "a.pdf", "file_data": PNG}}, PNG, "image/png", id="file"),
    pytest.param(
        {"type": "image", "source": {"type": "base64", "media_type": "a/b", "data": B64}}, B64, "a/b", id="anthropic"
    ),
    pytest.param(
        {"type": "image", "source": {"data": B64, "media_type": "a/b", "type": "base64"}}, B64, "a/b", id="anthropic 2"
    ),
    pytest.param({"audio": {"id": "x", "data": B64, "expires_at": 1, "transcript": "hi"}}, B64, "audio", id="answer"),
    pytest.param(
        {"images": [{"type": "image_url", "image_url": {"url": PNG}, "index": 0}]}, PNG, "image/png", id="answer 2"
    ),
    pytest.param({"b64_json": B64, "media_type": "image/webp"}, B64, "image/webp", id="drawn"),
    pytest.param({"size": "1x1", "b64_json": B64, "output_format": "png"}, B64, "image/png", id="drawn, as a format"),
    pytest.param({"b64_json": B64, "revised_prompt": "a b64_json", "url": None}, B64, "image", id="drawn, unnamed"),
    pytest.param({"b64_json": B64, "media_type": "Bearer x", "output_format": "../x"}, B64, "image", id="no types"),
    pytest.param({"x": {"y": 1}, "b64_json": B64, "media_type": 7, "z": [1]}, B64, "image", id="odd neighbours"),
    pytest.param({"url": PNG.replace(";", ";charset=utf-8;name=a.png;", 1)}, None, "image/png", id="with parameters"),
]  # fmt: skip


@pytest.mark.parametrize("spaces", [False, True], ids=["compact", "indented"])
@pytest.mark.parametrize(("value", "media", "kind"), MEDIA)
def test_each_vendors_media_is_told_of(value: dict[str, Any], media: str | None, kind: str, spaces: bool) -> None:
    """Its type, its size and the digest of what was encoded stand in its place, in the prompt and in the answer."""
    media = media or value["url"]
    raw = json.dumps([value], indent=2).encode() if spaces else compact([value])
    told = f"[{kind}, {DIGEST}"
    assert raw.replace(media.encode(), told.encode()) == without_media(raw)
    call = replaced(completed(messages=raw, completions=(value, {"content": "hi"})))
    assert without_media(raw) == call.messages
    assert (json.loads(compact(value).replace(media.encode(), told.encode())), {"content": "hi"}) == call.completions
    call = replaced(completed(messages=None, input=raw, output=raw))
    assert (None, without_media(raw), without_media(raw)) == (call.messages, call.input, call.output)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"url": "data:image/png;base64," + B64[:220]}, id="short"),
        pytest.param({"url": f"https://x.example/{B64}"}, id="another url"),
        pytest.param({"url": f"data:image/png,{B64}"}, id="not base64 by its own word"),
        pytest.param({"url": f"{PNG}!"}, id="not base64"),
        pytest.param({"url": f"{PNG}A"}, id="no whole base64"),
        pytest.param({"url": f"{PNG}==="}, id="too much of an end"),
        pytest.param({"url": f"{PNG}é"}, id="not ASCII"),
        pytest.param({"text": PNG}, id="a text that a person wrote"),
        pytest.param({"text": f'see {{"url":"{PNG}"}}'}, id="JSON in a text"),
        pytest.param({"data": B64}, id="data of nothing known"),
        pytest.param({"data": B64, "type": "redacted_thinking"}, id="thoughts"),
        pytest.param({"data": B64, "media_type": "image/png", "output_format": "png"}, id="data of no known kind"),
        pytest.param({"b64_json": "https://x.example/a.png", "text": B64}, id="no base64 where a picture should be"),
        pytest.param({"type": "base64", "media_type": "Bearer x", "data": B64}, id="no type"),
        pytest.param({"format": "../wav", "data": B64}, id="no format"),
        pytest.param({"type": {"a": "}"}, "format": "wav", "x": {}, "data": B64 + "?"}, id="objects beside"),
        pytest.param({"format": 5, "data": B64}, id="a number beside"),
        pytest.param({"format": "wav", "data": ["a"]}, id="a list"),
        pytest.param({"format": "wav", "data": B64 + "\n"}, id="lines"),
        pytest.param({"format": "wav", "data": "AA==" * 10_001}, id="too many pieces"),
        pytest.param({'x{"url": "data:image/png;base64,': B64}, id="a name"),
    ],
)
def test_what_is_no_media_is_not_touched(value: dict[str, Any]) -> None:
    """All else is the same object still, byte for byte."""
    raw = compact([value])
    assert raw is without_media(raw)
    call = completed(messages=raw, completions=(value,))
    assert call is replaced(call)


def test_what_is_not_recorded_is_not_looked_into() -> None:
    """A record without content keeps what it has: it is left out of the log anyhow."""
    call = completed(messages=compact([{"url": PNG}]), capture="metadata")
    assert call is replaced(call)
    empty = completed(messages=None)
    assert empty is replaced(empty)


def test_pieces_of_a_streamed_sound_are_one() -> None:
    """Each piece of a stream is base64 with an end of its own; size and digest are those of the whole sound."""
    pieces = [CONTENT[start : start + 100] for start in range(0, len(CONTENT), 100)]
    data = "".join(base64.b64encode(piece).decode() for piece in pieces)
    [completion] = replaced(
        completed(completions=({"audio": {"id": "a", "data": data, "expires_at": 1.5}},))
    ).completions
    assert f"[audio, {DIGEST}" == completion["audio"]["data"]


def test_the_vendor_takes_the_message_whole() -> None:
    """A picture's message is a message still, of which nothing is lost on the way to the log."""
    content = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": PNG}}]
    call = completed(messages=compact([{"role": "user", "content": content}]))
    entry = json.loads(log_entry.encode(replaced(call)))
    content[1] = {"type": "image_url", "image_url": {"url": f"[image/png, {DIGEST}"}}
    assert [{"role": "user", "content": content}] == entry["prompt_messages"]
    assert "input" not in entry


@pytest.mark.parametrize("shift", range(3))
def test_no_key_hides_in_media(shift: int) -> None:
    """A key within a file, or in its type, is in the record in no form."""
    key = "tenant-key-7-of-acme"
    hidden = base64.b64encode(CONTENT + b"x" * shift + key.encode() + CONTENT).decode()
    call = completed(messages=compact([{"content": [{"url": f"data:text/{key};{key}=1;base64,{hidden}"}]}]))
    told = replaced(call)
    assert told.messages is not None
    assert len(told.messages) < 200
    entry = log_entry.encode(told, (Secret(key),))
    assert key not in entry.decode()
    assert "[text/****, " in entry.decode()


def test_long_media_across_windows() -> None:
    """Media of any length, at any place, one behind the other: each is told of, and what stands between stays."""
    for size in (3 * WINDOW // 4 - 2, 3 * WINDOW // 4, 3 * WINDOW // 4 + 1, 10 * WINDOW):
        file = (CONTENT * (size // 768 + 1))[:size]
        url = f"data:image/png;base64,{base64.b64encode(file).decode()}"
        told = f"[image/png, {size} bytes, sha256:{hashlib.sha256(file).hexdigest()}]"
        for before in (0, 100, WINDOW - 30, WINDOW - 8, WINDOW - 5, WINDOW - 1, 3 * WINDOW):
            value = ["x" * before, {"url": url}, {"url": url, "b": ["y"]}, "z" * before]
            assert compact(value).replace(url.encode(), told.encode()) == without_media(compact(value))


NAMES = st.sampled_from(
    [
        "url",
        "image_url",
        "file_data",
        "data",
        "b64_json",
        "output_format",
        "type",
        "media_type",
        "format",
        "expires_at",
        "text",
        'q"',
    ]
)
PIECES = st.sampled_from(
    [
        "data:",
        "image/png",
        ";base64,",
        B64[:512],
        B64,
        "AA==",
        "=",
        '"',
        "\\",
        '{"url":"',
        ',"data":"',
        "}",
        "ä",
        "wav",
        "base64",
    ]
)
STRINGS = st.lists(PIECES, max_size=6).map("".join) | st.sampled_from([PNG, B64, "base64", "image/png", "wav"])
VALUES = st.recursive(
    STRINGS | st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(value=VALUES, indent=st.sampled_from([None, 1]), before=st.integers(0, 1) | st.integers(WINDOW - 600, WINDOW))
@example(value={"url": PNG, "data": B64, "format": "wav"}, indent=None, before=0)
def test_any_json_stays_json(value: Any, indent: int | None, before: int) -> None:
    """Of any JSON the same JSON is left with texts for its media; reading it and telling of media commute."""
    raw = json.dumps(["x" * before, value], ensure_ascii=False, indent=indent).encode()
    told = json.loads(without_media(raw))
    [message] = replaced(completed(completions=({"value": value},))).completions
    left = without_media(compact([told[1], message["value"]]))
    # The two look about in different ways: bytes 256 characters far, values as far as an object goes.
    assert without_media(left) == left
    assert shape(told[1]) == shape(value) == shape(message["value"])
    if len(compact(value)) < 200:
        assert value == told[1] == message["value"]
    urls = [text for text in texts(told[1]) if text == PNG]
    assert urls == [text for text in texts(message["value"]) if text == PNG]


def shape(value: Any) -> Any:
    """A value with every text left out."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return "" if isinstance(value, str) else value


def texts(value: Any) -> list[str]:
    """Every text in a value."""
    if isinstance(value, dict | list):
        return [text for each in (value.values() if isinstance(value, dict) else value) for text in texts(each)]
    return [value] if isinstance(value, str) else []


@given(st.lists(PIECES.map(str.encode) | st.binary(max_size=3), max_size=12).map(b"".join))
def test_any_bytes_are_taken(raw: bytes) -> None:
    """What is no JSON does no harm."""
    assert isinstance(without_media(raw), bytes)


@pytest.mark.parametrize(
    "piece",
    [b'{"url":"data:image/png;base64,', b'{"data":"', b",", b";base64,", b'"data"', b'{"data":"AA==',
     b'{"b64_json":"', b'"', b" ", b"A"]
)  # fmt: skip
def test_hostile_texts_take_linear_time(piece: bytes) -> None:
    """Megabytes of nothing but beginnings are looked through, and come back as they were."""
    raw = piece * (1_000_000 // len(piece))
    assert raw is without_media(raw)
    assert raw == without_media(b'{"url":"data:image/png;base64,' + raw)[30:]


def test_deep_answers_are_left_where_no_vendor_has_media() -> None:
    """A value of an app's own, nested as deep as it likes, does no harm."""
    deep: Any = PNG
    for _ in range(500):
        deep = {"url": deep}
    call = completed(completions=(deep,))
    assert call is replaced(call)
    assert without_media(msgspec.json.encode([deep])) != msgspec.json.encode([deep])

"""Long texts and long JSON read and written in windows are what they would be at one go."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._pace import WINDOW
from kwai_middleware._pieces import (
    as_text,
    decoded_json,
    encoded_members,
    encoded_object,
    is_text,
    is_utf8,
    outline,
)

# Texts of which a piece that cannot be cut stands at the end of a window, or near it.
SIZES = st.integers(WINDOW - 40, WINDOW + 20)
FILLERS = st.sampled_from(["a", "ä", "日", "😀", "\\", '"', "\n", "\u007f"])
ENDS = st.text(st.sampled_from('ab"\\/\nuäé日😀\ue000\udfff'.replace("\udfff", "")), max_size=60)
LONG_TEXTS = st.builds(lambda filler, size, end: filler * size + end + "x" * 50, FILLERS, SIZES, ENDS)
BYTES = st.lists(
    st.sampled_from(
        [b"a", "ä".encode(), "日".encode(), "😀".encode(), b"\xff", b"\xc3", b"\xf0\x9f", b"\x98", b"\x80"]
    ),
    max_size=30,
).map(b"".join)


@given(size=SIZES, body=BYTES, end=st.sampled_from([b"", b"end"]))
def test_what_is_no_utf8_is_found_wherever_it_stands(size: int, body: bytes, end: bytes) -> None:
    """Bytes at the border of windows are judged, and replaced, as anywhere else."""
    raw = b"a" * size + body + end
    try:
        raw.decode()
    except UnicodeDecodeError:
        assert not is_utf8(raw)
    else:
        assert is_utf8(raw)
    assert raw.decode(errors="replace") == json.loads(bytes(as_text(raw)))
    assert msgspec.json.encode(raw.decode(errors="replace")) == bytes(as_text(raw))


@given(text=LONG_TEXTS, ensure_ascii=st.booleans(), spaces=st.booleans())
@example(text="\\" * (WINDOW + 1), ensure_ascii=True, spaces=False)
@example(text="a" * (WINDOW - 7) + "\\ud83d" * 9, ensure_ascii=True, spaces=False)
def test_long_json_is_read_as_at_one_go(text: str, ensure_ascii: bool, spaces: bool) -> None:
    """No character, no escape and no pair of escapes is torn apart, at whatever depth the text stands."""
    value = {"a": [1, {"b": text, "c": {"d": [text, None]}}], "e": text, "ä": {"f": 1.5}}
    separators = None if spaces else (",", ":")
    raw = json.dumps(value, ensure_ascii=ensure_ascii, separators=separators).encode()
    assert value == decoded_json(b" \n" + raw + b" ")
    assert {"a": [1, {"b": "", "c": {"d": ["", None]}}], "e": "", "ä": {"f": 1.5}} == msgspec.json.decode(
        outline(msgspec.Raw(raw))
    )


@given(text=LONG_TEXTS, other=st.text(max_size=5), number=st.integers())
def test_long_members_are_written_as_at_one_go(text: str, other: str, number: int) -> None:
    """An object is encoded byte for byte as msgspec does it."""
    members = {"a": other, "ä\n": text, "b": {"c": text[-60:]}, "d": number % 2**60}
    assert msgspec.json.encode(members) == bytes(encoded_members(members))
    assert msgspec.json.encode({"a": other}) == bytes(encoded_members({"a": other}))


@pytest.mark.parametrize("size", [1, WINDOW, WINDOW + 1, 5 * WINDOW])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_lists_of_long_json_are_written_as_at_one_go(size: int, count: int) -> None:
    """Of a list, too, each item is as msgspec encodes it: JSON as it is, texts, and all else."""
    document = msgspec.Raw(b'["%b"]' % (b"\\n" * size))
    items = [document, "\n" * size, {"a": [1]}, [], None] * count
    members = {"a": items, "b": document, "c": None, "d": []}
    assert msgspec.json.encode(members) == encoded_object(members)


def test_names_that_are_no_texts_are_written_too() -> None:
    """An app's own record may number its members."""
    members: Any = {1: "a" * (WINDOW + 1)}
    assert msgspec.json.encode(members) == bytes(encoded_members(members))


@pytest.mark.parametrize("fault", [rb"\q", rb"\ud83d", rb"\u00g0", b"\xff", b"\x01"])
@pytest.mark.parametrize("place", [0, WINDOW - 3, WINDOW - 1, WINDOW, WINDOW + 200])
def test_a_text_that_is_none_is_found_out(fault: bytes, place: int) -> None:
    """What msgspec refuses at one go is refused in windows, wherever the fault is."""
    text = b"a" * place + fault + b"b" * (WINDOW + 300 - place)
    raw = b'{"x":[{"y":"%b"}]}' % text
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        msgspec.json.decode(raw)
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decoded_json(raw)


@given(
    st.lists(
        st.sampled_from(
            ["\\", "u", "d83d", "\\ud83d", "\\ude00", "\\u00e9", '"', "\x01", "\n", "a", "ä", "😀", "\\n", "\\q",
             "\\/", "0", '\\"']
        ),
        max_size=8,
    ).map("".join)
)  # fmt: skip
def test_what_msgspec_passes_over_is_looked_into(text: str) -> None:
    """A text that would not be read is not passed over either; an outline stands on that."""
    raw = f'"{text}"'.encode()
    accepted = []
    for type_ in (str, msgspec.Raw):
        try:
            msgspec.json.decode(raw, type=type_)
        except msgspec.DecodeError:
            accepted.append(False)
        else:
            accepted.append(True)
    assert accepted[0] == accepted[1]


@pytest.mark.parametrize("raw", [b"1" * (WINDOW + 1), b" " * WINDOW + b"1", b"[" * (WINDOW + 1), b"", b"nul"])
def test_what_is_long_otherwise_is_left_to_the_decoder(raw: bytes) -> None:
    """Long numbers, blanks and depths are no texts; they end as they do at one go."""
    try:
        expected: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        with pytest.raises((msgspec.DecodeError, RecursionError)):
            decoded_json(raw)
    else:
        assert expected == decoded_json(raw)
        assert raw == bytes(outline(msgspec.Raw(raw)))


@given(text=LONG_TEXTS, fault=st.sampled_from(["", '"', "\\q", "\\", "\x01", "\\ud83d"]))
@example(text="", fault="")
def test_one_text_is_told_from_all_else(text: str, fault: str) -> None:
    """A document that is one text, however long, is found out in windows, and so is one that is none."""
    raw = f"{json.dumps(text, ensure_ascii=False)[:-1]}{fault}".encode() + b'"'
    try:
        found = isinstance(json.loads(raw), str) and not fault
    except ValueError:
        found = False

    assert found == is_text(raw)
    assert not is_text(b" " + raw)

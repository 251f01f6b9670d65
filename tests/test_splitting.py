"""Long JSON that is taken apart in windows is what the parser makes of it at one go, and the same is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kwai_middleware._joining import joined
from kwai_middleware._pace import WINDOW, Pace, breathe
from kwai_middleware._splitting import LARGE, items_of, look_into, members_of

Parts = list[tuple[str, bytes]] | str
REFUSED: Final = "refused"

# Texts that look like borders, or hide where they end.
TEXTS = st.lists(
    st.sampled_from(["a", '"', "\\", "}, {", "},{", '","', "],[", "[", "é", "😀", "\n", "1,2", "\u0001"]), max_size=6
).map("".join)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(-9, 10**12), st.floats(allow_nan=False, allow_infinity=False), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
# How often a value stands there: many short ones, or one that is longer than what is read at one go.
MANY = st.sampled_from([1, 3, LARGE // 3])
LONG_TEXTS = st.builds(lambda text, times: (text or "word ") * times, TEXTS, st.sampled_from([1, LARGE // 4, LARGE]))
FAULTS = st.one_of(
    st.none(), st.tuples(st.floats(0, 1), st.sampled_from(["", '"', ",", "{", "}", "[", "]", "\\", " ", ":", "x", "1"]))
)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")])


def taken(take: Callable[[bytes], Any], raw: bytes) -> Parts:
    """What there is in JSON, by name; or that it is none."""
    try:
        found = take(raw)
    except (msgspec.DecodeError, RecursionError):
        return REFUSED
    if isinstance(found, dict):
        return [(name, bytes(value)) for name, value in found.items()]
    return [("", bytes(value)) for value in found or ()]


def both_ways(raw: bytes) -> None:
    """Take JSON apart at one go and in windows."""
    assert taken(msgspec.json.Decoder(dict[str, msgspec.Raw]).decode, raw) == taken(members_of, raw)
    assert taken(msgspec.json.Decoder(list[msgspec.Raw]).decode, raw) == taken(items_of, raw)
    is_json = taken(lambda each: [msgspec.json.decode(each, type=msgspec.Raw)], raw) != REFUSED
    assert is_json == (taken(look_into, raw) != REFUSED)


@settings(max_examples=60, deadline=None)
@given(VALUES, VALUES, LONG_TEXTS, MANY, st.booleans(), st.booleans(), SEPARATORS, FAULTS)
def test_it_is_what_it_is_at_one_go(
    first: Any,
    second: Any,
    text: str,
    times: int,
    is_object: bool,
    ensure_ascii: bool,
    separators: tuple[str, str],
    fault: tuple[float, str] | None,
) -> None:
    """Members and items are the same byte for byte; a character too many or too few is found wherever it stands."""
    items = [first, *[second] * times, {"a": [{"b": text}, text]}, first]
    value: Any = {"model": "m", "messages": items, "é": text, "n": second} if is_object else items
    spelled = json.dumps(value, ensure_ascii=ensure_ascii, separators=separators)
    if fault is not None:
        place = int(fault[0] * len(spelled))
        spelled = spelled[:place] + fault[1] + spelled[place + (not fault[1]) :]
    both_ways(f" {spelled}\n".encode())


A_LONG_TEXT: Final = b'"' + b"a" * LARGE + b'"'
A_LONG_LIST: Final = b"1," * LARGE + b"1"


@pytest.mark.parametrize(
    "raw",
    [
        b" " * LARGE + b"[]",
        b" " * (LARGE + 1),
        b"[" + b" " * LARGE + b"]",
        b"{" + b" " * LARGE + b"}",
        b"[" * (LARGE + 1),
        b"[" * LARGE + b"]" * LARGE,
        b"[1," + b"1" * (LARGE + 1) + b"]",
        b"[%b,]" % A_LONG_TEXT,
        b"[,%b]" % A_LONG_TEXT,
        b"[%b,,1]" % A_LONG_TEXT,
        b"[%b 1]" % A_LONG_TEXT,
        b"[[%b}]" % A_LONG_LIST,
        b"[[%b]]]" % A_LONG_LIST,
        b"[%b],[]" % A_LONG_LIST,
        b"[[%b]" % A_LONG_LIST,
        b"[%b,]" % A_LONG_LIST,
        b'["%b]' % (b"\\" * (2 * LARGE + 1)),
        b'["%b"]' % (b"\\" * (2 * LARGE)),
        b'["%b"]' % (b"\\" * (2 * LARGE + 1)),
        b'["%b\\"]' % (b"a" * (WINDOW * 5 - 2)),
        b"{%b:1}" % A_LONG_TEXT,
        b"{%b}" % A_LONG_TEXT,
        b'{"a":1,"a":%b,"a":[%b]}' % (A_LONG_TEXT, A_LONG_LIST),
        b'{"a":{"b":%b,"c":1,},"d":1}' % A_LONG_TEXT,
        b'[{"x":1}%b]' % (b',{"x":"},{"},[["y"],["z"],{"a":{"b":{"c":{"d":{}}}}}]' * 4000),
        b'["a"%b]' % (b',"\\",\\"", "a"' * 8000),
        A_LONG_TEXT,
        A_LONG_TEXT[:-1],
        b"x" * (LARGE + 1),
    ],
    ids=lambda raw: f"{raw[:20].decode()}...{raw[-9:].decode()}",
)
def test_odd_documents_are_what_they_are_at_one_go(raw: bytes) -> None:
    """Blanks, depth, numbers and faults may be long, too."""
    both_ways(raw)


def test_what_is_no_utf8_is_no_fault() -> None:
    """The parser does not look into texts that it passes over; names count as such."""
    look_into(b'[{"\xff":%b},"\xff"]' % A_LONG_TEXT)


@given(st.lists(st.binary(max_size=9), max_size=9), st.lists(st.integers(0, 2 * LARGE), max_size=4))
@example([], [LARGE - 1])
@example([b"a"], [LARGE, 0, 5])
def test_joined_is_joined(short: list[bytes], sizes: list[int]) -> None:
    """Whatever the sizes of the parts, nothing is lost between them and nothing is added."""
    parts: list[bytes] = [*short, *(bytes([65 + number]) * size for number, size in enumerate(sizes)), *short]
    assert b"".join(parts) == joined(parts)
    assert b"".join(parts) == joined([memoryview(part) for part in parts])


class Counting(Pace):
    """Counts the moments at which a thread would rest, if it were always time to."""

    def __init__(self) -> None:
        super().__init__()
        self.moments = 0

    def rest(self) -> None:
        self.moments += 1
        self.due = 0


@pytest.mark.parametrize(
    "work",
    [items_of, look_into, lambda raw: members_of(b'{"messages":%b,"stream":true}' % raw), lambda raw: joined([raw])],
    ids=["items", "a look", "members", "joined"],
)
@pytest.mark.parametrize("item", [b'{"role":"user","content":"short"}', b'{"content":"%b"}' % (b"long, " * 300_000)])
def test_no_step_is_given_much_at_once(work: Callable[[bytes], object], item: bytes) -> None:
    """There is a moment to rest for each few windows, whether a document has many items or one that is long."""
    raw = b"[%b]" % b",".join([item] * (1_500_000 // len(item) or 1))
    with (counting := Counting()):
        counting.due = 0
        breathe()
        work(raw)
    assert 1 + len(raw) / WINDOW / 4 < counting.moments

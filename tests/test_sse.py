"""Server-sent events: what a stream of a model is cut into."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._outbound.sse import Event, events

# Bytes that mean something, so that random bodies have structure.
BODIES = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"data", b"data:", b"data: ", b"event: x", b"id: 7", b":", b" ",
         b"{}", b"\xef\xbb\xbf", b"\xff", "ö".encode()]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


def by_the_standard(body: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Read a body byte by byte, as the HTML standard says; data, name and id of each event."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    lines, line, place = [], b"", 0
    while place < len(body):
        byte = body[place : place + 1]
        place += 1
        if byte not in (b"\r", b"\n"):
            line += byte
            continue
        if byte == b"\r" and body[place : place + 1] == b"\n":
            place += 1
        lines.append(line)
        line = b""
    # The end of the body counts as the end of an event; that alone is not in the standard.
    found, data, name, identifier = [], [], b"", b""
    for each in [*lines, line, b""]:
        field, _, value = each.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not each:
            if data:
                found.append((b"\n".join(data), name, identifier))
            data, name, identifier = [], b"", b""
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field == b"id":
            identifier = value
    return found


@given(BODIES)
@example(b"data: a\r\n\r\ndata: b\r\rdata: c\n\r\ndata: d")
def test_any_bytes_give_the_events_of_the_standard(body: bytes) -> None:
    """Any bytes with any line ends give the events that the standard's own algorithm gives."""
    assert by_the_standard(body) == [(event.data, event.name, event.id) for event in events(body)]


@given(st.integers(16_360, 16_385), BODIES)
def test_windows_do_not_show(size: int, body: bytes) -> None:
    """Long bodies are read in windows; where one ends makes no difference."""
    comment = b":" * size + b"\n\n"

    assert [event.data for event in events(b"\n" + body)] == [event.data for event in events(comment + body)]
    for line_end in (b"", b"\n", b"\r", b"\r\n"):
        short = [(event.data, event.end + size - 1) for event in events(b":" + line_end + body)]
        assert short == [(event.data, event.end) for event in events(b":" * size + line_end + body)]


@pytest.mark.parametrize("empty", [b"\r\r\n", b"\n\r\n", b"\r\n\r\n", b"\r\n\r", b"\n\r", b"\r\r"])
def test_an_empty_line_across_the_border_of_a_window_is_one(empty: bytes) -> None:
    """A carriage return that ends a window and the line feed that begins the next are one end of a line."""
    for size in range(16_370, 16_390):
        body = b":" * size + empty + b"data: a" + empty + b"data: b"
        assert [(b"a", size + 2 * len(empty) + 7), (b"b", len(body))] == [
            (event.data, event.end) for event in events(body)
        ]


@given(BODIES)
def test_an_event_is_whole_at_its_offset(body: bytes) -> None:
    """What has arrived by an event's offset is enough to read it, and the offsets never fall."""
    found = list(events(body))
    for count, event in enumerate(found, 1):
        assert [each.data for each in found[:count]] == [each.data for each in events(body[: event.end])]
    assert sorted(event.end for event in found) == [event.end for event in found]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b": OPENROUTER PROCESSING\n\n" * 20 + b"data: a\n\n", [(b"a", 509)], id="comments"),
        pytest.param(b"data: a\n\ndata: b\n\n", [(b"a", 9), (b"b", 18)], id="two"),
        pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"a", 11), (b"b", 22)], id="two with CRLF"),
        pytest.param(b"data: a\ndata:b\n\n", [(b"a\nb", 16)], id="several lines"),
        pytest.param(b"data: a\n\ndata: [DONE]", [(b"a", 9), (b"[DONE]", 21)], id="no line end at the end"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [(b"a", 12)], id="byte order mark"),
        pytest.param(b"\n\n\n\ndata:  a\n\n", [(b" a", 14)], id="empty lines, and only one blank is taken off"),
    ],
)
def test_events_and_their_offsets(body: bytes, expected: list[tuple[bytes, int]]) -> None:
    """Each event comes with the number of bytes it took to be complete."""
    assert expected == [(event.data, event.end) for event in events(body)]


def test_names_and_ids_are_kept() -> None:
    """An event's name and id come with it, and end with it."""
    body = b"event: message_stop\nid: 3\ndata: {}\n\ndata: {}\n\n"

    assert [Event(b"{}", 36, b"message_stop", b"3"), Event(b"{}", 46)] == list(events(body))


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_events_larger_than_any_window(line_end: bytes, size: int) -> None:
    """An event of any size between small ones comes out whole."""
    body = b"".join(b"data: " + part + line_end * 2 for part in (b"a", b"x" * size, b"b"))

    assert [b"a", b"x" * size, b"b"] == [event.data for event in events(body)]


@pytest.mark.parametrize("unit", [b"\n", b"\r", b"data\n", b"data:\r\n", b":\n\n", b"data: {\n\n", b"\r\n\r"])
def test_megabytes_of_nonsense_end(unit: bytes) -> None:
    """A million pieces of one kind come to an end; in quadratic time this test would not."""
    assert len(list(events(unit * 1_000_000))) <= 1_000_000

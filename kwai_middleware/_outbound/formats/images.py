"""Pictures drawn after a prompt, as OpenAI's and OpenRouter's endpoints for images answer."""

from __future__ import annotations

import re
import string
from typing import Any, Final

import msgspec

from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.asking import count, request_members, request_of, words
from kwai_middleware._outbound.formats.facts import Facts
from kwai_middleware._outbound.formats.interface import Answer, Received, Request
from kwai_middleware._outbound.formats.long_values import ReadingWithout
from kwai_middleware._outbound.formats.parameters import without_keys
from kwai_middleware._outbound.formats.reading import Told
from kwai_middleware._outbound.formats.sent_form import sent_form
from kwai_middleware._pace import windows
from kwai_middleware._pieces import encoded_members

__all__ = ["answer", "form", "request"]

_MOST_PICTURES: Final = 1000
_REFERENCES: Final = ("input_references", "images")
"""Members of a request that hold pictures to go by: OpenRouter's and OpenAI's."""

_BASE64_AND_QUOTES: Final = b'"' + string.ascii_letters.encode() + string.digits.encode() + b"+/-_="
_LINE_ENDS: Final = re.compile("[\r\n]+")
_NO_PART_OF_A_PICTURE: Final = ("type", "usage", "created", "created_at", "sequence_number")


def request(body: bytes) -> Request:
    """Read a request's body; see `Format`. The prompt is a text, or that and the pictures to go by."""
    members = request_members(body)
    prompt = members.pop("prompt", None)
    references = {name: members.pop(name) for name in _REFERENCES if name in members}
    given = msgspec.json.encode(({} if prompt is None else {"prompt": prompt}) | references) if references else prompt
    return request_of(members, prompt=given, choices=count(members.get("n")))


def form(head: bytes, end: bytes, size: int) -> Request:
    """Read a request's body that is a form; see `FormFormat`. The pictures to go by are told of by name, type, size."""
    if not head.startswith(b"--"):
        return request(head) if len(head) == size else Request()
    sent = sent_form(head, end, size)
    members = dict(sent.members)
    prompt = members.pop("prompt", None)
    given = ({} if prompt is None else {"prompt": prompt}) | ({"images": sent.files} if sent.files else {})
    return Request(
        model=words(sent.first("model")),
        stream=sent.first("stream").lower() == b'"true"',
        choices=count(sent.first("n")),
        input=msgspec.json.encode(given) if given else None,
        parameters=without_keys({name: raw for name, raw in members.items() if name not in ("model", "stream")}),
    )


def answer(received: Received, request: Request) -> Answer:
    """Read an answer's body; see `Format`. What is not yet a picture is not kept."""
    reading = ReadingWithout(received, "b64_json")
    assembly = _Assembly(reading, request.choices)
    reading.fill(assembly)
    if received.streamed:
        assembly.add_end(reading.end)
    return reading.mended(assembly.answer())


class _Assembly:
    """The pictures of an answer."""

    def __init__(self, reading: ReadingWithout, asked: int) -> None:
        self._reading = reading
        self._facts = Facts()
        self._asked = asked
        self._pictures: list[list[bytes]] | None = None
        self._first_content: int | None = None
        self._finished: int | None = None
        self._ends_with_body = False

    def skip(self) -> None:
        """Note nothing: a picture is in one event, and between events nothing is torn."""

    def add_at_once(self, members: dict[str, Any], size: int | None) -> None:
        """Add an answer that came at once; see `Assembly`."""
        self._facts.add(members)
        self._finished = size
        if isinstance(members.get("data"), list):
            items = tolerant.items_of(members["data"])[:_MOST_PICTURES]
            self._pictures = [_picture(tolerant.members_of(item), self._reading.values) for item in items]

    def add(self, told: Told) -> bool:
        """Add an event; see `Assembly`."""
        event, end = told.members, told.end
        self._facts.add(event)
        kind = str(event.get("type"))
        is_picture = kind.endswith(".completed")
        if self._first_content is None and (is_picture or kind.endswith(".partial_image") or event.get("text")):
            self._first_content = end
        if is_picture:
            self._pictures = self._pictures or []
            if len(self._pictures) < _MOST_PICTURES:
                self._pictures.append(_picture(event, self._reading.values))
            # Fewer may come than were asked for: then the answer is over when nothing follows.
            self._ends_with_body = True
            if len(self._pictures) >= self._asked:
                self._finished = end
        is_over = told.is_done or self._facts.failure is not None
        if is_over and self._finished is None:
            self._finished = end
        return is_over

    def add_end(self, end: bytes) -> None:
        """Add the end of an answer whose middle is missing: a picture may be too large to be kept."""
        if not self._facts.has_usage:
            self._facts.add_usage(usage.last_in(end))

    def answer(self) -> Answer:
        return self._facts.answer(
            output=None if self._pictures is None else _joined(self._pictures),
            first_content=self._first_content,
            finished=self._finished,
            ends_with_body=self._ends_with_body,
        )


def _picture(members: dict[str, Any], values: list[memoryview]) -> list[bytes]:
    """Return a picture and what is said of it as JSON, in pieces."""
    told: dict[str, Any] = tolerant.members_of(
        tolerant.paired({name: value for name, value in members.items() if name not in _NO_PART_OF_A_PICTURE})
    )
    place = told.get("b64_json")
    if type(place) is not int or not 0 <= place < len(values):
        return [bytes(encoded_members(told))]
    del told["b64_json"]
    others = bytes(encoded_members(told))[1:]
    return [b'{"b64_json":', *_spelled(values[place]), b"," if told else b"", others]


def _spelled(value: memoryview) -> list[bytes]:
    """Return base64, given as it was written, as a JSON text without escapes and ends of lines, in pieces."""
    pieces: list[bytes] = []
    is_plain = True
    rest = b""
    for start, end in windows(len(value)):
        # Some servers write a slash with a backslash, which may be the last sign of a window.
        piece = rest + bytes(value[start:end])
        rest = piece[-1:] if piece.endswith(b"\\") else b""
        pieces.append(piece.removesuffix(b"\\").replace(b"\\/", b"/"))
        is_plain = is_plain and not pieces[-1].translate(None, _BASE64_AND_QUOTES)
    if is_plain:
        return pieces
    text = tolerant.paired(tolerant.loads(value.tobytes()))
    return [msgspec.json.encode(_LINE_ENDS.sub("", text) if isinstance(text, str) else None)]


def _joined(pictures: list[list[bytes]]) -> bytes:
    pieces = [b"["]
    for place, picture in enumerate(pictures):
        pieces += (b",", *picture) if place else picture
    # Many megabytes perhaps: this leaves the interpreter to others meanwhile, as no encoder does.
    return b"".join((*pieces, b"]"))

"""How a key may be spelled in a text, and where in a text it stands."""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from kwai_middleware._secret import Secret

__all__ = ["Sighting", "Spellings"]

_MASK: Final = "****"
_SHORTEST: Final = 16
"""So many consecutive characters of a key's random part are a sighting; fewer are what people abbreviate keys to."""

_GRAM: Final = 8
_AROUND: Final = 60


@dataclass(frozen=True, slots=True)
class Sighting:
    """A place where the key, or a distinctive part of it, was seen.

    Attributes:
        where: Which text it was.
        form: How the key is spelled there: `plain`, `base64`, `escaped`, ...
        excerpt: The text around it, with the key masked.
    """

    where: str
    form: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.where} [{self.form}]: {self.excerpt}"


class _Needle(NamedTuple):
    """One spelling of the key's random part; `at_least` consecutive characters of it count."""

    form: str
    text: str
    at_least: int = _SHORTEST
    any_case: bool = False


class Spellings:
    """Finds a key in texts, however it is spelled there; shows nothing of it.

    Args:
        key: One with a long random part, all hexadecimal digits, after its last hyphen.
    """

    __slots__ = ("_exact", "_lowered")

    def __init__(self, key: Secret) -> None:
        needles = list(_needles(key.reveal().rpartition("-")[2]))
        self._lowered = _by_gram(needle for needle in needles if needle.any_case)
        self._exact = _by_gram(needle for needle in needles if not needle.any_case)

    def __repr__(self) -> str:
        return "Spellings(****)"

    def sightings(self, where: str, text: str) -> list[Sighting]:
        """Return every sighting in a text, each with an excerpt that is safe to show."""
        found: list[Sighting] = []
        for manner, reading, places in self._found(text):
            for place in places:
                form = f"{manner}, {place.form}" if manner else place.form
                found.append(Sighting(self.masked(where), form, self._excerpt(reading, place, places)))
        return found

    def masked(self, text: str) -> str:
        """Return the text without the key in it."""
        for manner, reading, places in self._found(text):
            if manner:
                return _MASK
            text = _without(reading, places)
        return text

    def _found(self, text: str) -> Iterator[tuple[str, str, list[_Place]]]:
        """Each way to read the text in which the key is found that was not found in the ways before."""
        for manner, read in _READINGS:
            before, text = text, read(text)
            if manner and text == before:
                continue
            if places := self._places(text):
                yield manner, text, places
                text = _without(text, places)

    def _excerpt(self, text: str, place: _Place, places: list[_Place]) -> str:
        start, end = max(place.start - _AROUND, 0), place.end + _AROUND
        near = [each for each in places if start < each.end and each.start < end]
        start = min(start, *(each.start for each in near), start)
        end = max(end, *(each.end for each in near), end)
        shifted = [_Place(each.form, each.start - start, each.end - start) for each in near]
        return " ".join(self.masked(_without(text[start:end], shifted)).split())

    def _places(self, text: str) -> list[_Place]:
        lowered = text.lower() if text.isascii() else text.translate(_LOWER)
        places = set(_matches(self._exact, text)) | set(_matches(self._lowered, lowered))
        return sorted(places, key=lambda place: place.start)


class _Place(NamedTuple):
    """A run of a needle in a text."""

    form: str
    start: int
    end: int


_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def _needles(random: str) -> Iterator[_Needle]:
    yield _Needle("plain", random, any_case=True)
    yield _Needle("reversed", random[::-1], any_case=True)
    yield _Needle("hexadecimal", random.encode().hex(), 2 * _SHORTEST, any_case=True)
    yield _Needle("numbers of bytes", "".join(str(byte) for byte in random.encode()), 2 * _SHORTEST)
    for once in _in_base64(random):
        yield _Needle("base64", once)
        for twice in _in_base64(once):
            yield _Needle("base64 of base64", twice)


def _in_base64(text: str) -> Iterator[str]:
    """What a text becomes inside of something that is encoded, at each alignment; hexadecimal digits need no `+/=`."""
    for start in range(3):
        whole = len(text) - (len(text) - start) % 3
        yield base64.b64encode(text[start:whole].encode()).decode()


def _by_gram(needles: Iterable[_Needle]) -> Mapping[str, list[tuple[_Needle, int]]]:
    """Each piece of a needle, and where in the needle it stands."""
    grams: dict[str, list[tuple[_Needle, int]]] = {}
    for needle in needles:
        for offset in range(len(needle.text) - _GRAM + 1):
            grams.setdefault(needle.text[offset : offset + _GRAM], []).append((needle, offset))
    return grams


def _matches(grams: Mapping[str, list[tuple[_Needle, int]]], text: str) -> Iterator[_Place]:
    # Any run that counts holds one whole piece that begins at a multiple of a piece's length.
    for position in range(0, len(text) - _GRAM + 1, _GRAM):
        for needle, offset in grams.get(text[position : position + _GRAM], ()):
            place = _grown(needle, text, position, offset)
            if place.end - place.start >= needle.at_least:
                yield place


def _grown(needle: _Needle, text: str, position: int, offset: int) -> _Place:
    """The longest run of the needle around its piece at `position`."""
    start, end = position, position + _GRAM
    begin, stop = offset, offset + _GRAM
    while start > 0 and begin > 0 and text[start - 1] == needle.text[begin - 1]:
        start, begin = start - 1, begin - 1
    while end < len(text) and stop < len(needle.text) and text[end] == needle.text[stop]:
        end, stop = end + 1, stop + 1
    return _Place(needle.form, start, end)


def _without(text: str, places: list[_Place]) -> str:
    parts: list[str] = []
    position = 0
    for place in places:
        parts += text[position : place.start], _MASK
        position = max(position, place.end)
    return "".join((*parts, text[position:]))


_ESCAPE: Final = re.compile(
    r"\\+(?:u\{?0*|U0{6}|x)(?P<backslash>[2-7][0-9A-Fa-f])\}?"
    r"|%(?P<percent>[2-7][0-9A-Fa-f])"
    r"|=(?P<quoted>[2-7][0-9A-F])"
    r"|&#x0*(?P<entity>[2-7][0-9A-Fa-f]);"
    r"|&#0*(?P<number>[0-9]{2,3});"
)
_NO_SEPARATORS: Final = re.compile(r"[^0-9A-Za-z]+")


def _meant(escape: re.Match[str]) -> str:
    number = escape["number"]
    if number is not None:
        return chr(int(number))
    return chr(int(escape[escape.lastgroup or 0], 16))


def _as_it_stands(text: str) -> str:
    return text


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_meant, text)


def _without_separators(text: str) -> str:
    return _NO_SEPARATORS.sub("", text)


# Each works on what the one before made of the text.
_READINGS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("", _as_it_stands),
    ("escaped", _unescaped),
    ("escaped twice", _unescaped),
    ("in pieces", _without_separators),
)

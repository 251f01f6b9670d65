"""The caller's own keys, in each form in which they may stand in a text."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from kwai_middleware._pace import WINDOW
from kwai_middleware._redaction.searching import places_of
from kwai_middleware._secret import Secret

__all__ = ["SHORTEST_KEY", "Keys", "Spelling"]

SHORTEST_KEY: Final = 8
"""What has fewer characters is no key of any vendor, but may well be a piece of a word."""

_DEEPEST_JSON: Final = 4
_MOST_IN_BASE64: Final = 7
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_BASE64: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


class Spelling(NamedTuple):
    """A key as it may stand in a text.

    In base64 the characters at either end hold bits of what stands beside the key as well, so only
    those between are always the same.

    Attributes:
        text: What is always the same. Holds the key in clear.
        before: How many characters of base64 before it hold bits of the key.
        after: How many behind it do.
    """

    text: bytes
    before: int = 0
    after: int = 0

    def extent(self, text: bytes, start: int, end: int) -> tuple[int, int]:
        """Return from where to where a text holds bits of the key whose spelling was found from `start` to `end`."""
        if self.before and start and text[start - 1] in _BASE64:
            start -= 1
        if self.after and end < len(text) and text[end] in _BASE64:
            end += 1
        return start, end


class Keys:
    """The keys to look for. Their spellings are made once, when the first text is long enough for one of them.

    They are kept for as long as this is, like the keys themselves in their `Secret`, and like those
    they are not shown.

    Args:
        secrets: Keys of any shape; those of fewer than 8 characters are left alone.
    """

    __slots__ = ("_secrets", "_shortest", "_spellings")

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._secrets: Final = tuple(secret for secret in secrets if len(secret.reveal()) >= SHORTEST_KEY)
        # No spelling is shorter than its key, and no character than a byte.
        self._shortest: Final = min((len(secret.reveal()) for secret in self._secrets), default=0)
        self._spellings: tuple[Spelling, ...] | None = None

    @classmethod
    def of(cls, secrets: Iterable[Secret] | Keys) -> Keys:
        """Return `secrets` ready to be looked for."""
        return secrets if isinstance(secrets, Keys) else cls(secrets)

    def spellings(self) -> tuple[Spelling, ...]:
        """Return every spelling of every key."""
        if self._spellings is None:
            self._spellings = tuple(spelling for secret in self._secrets for spelling in _spellings(secret.reveal()))
        return self._spellings

    def places(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Find the keys in a text, those spelled with escapes aside: from where to where each stands."""
        if not self._shortest or len(text) < self._shortest:
            return
        is_short = len(text) <= WINDOW
        for spelling in self.spellings():
            if is_short and spelling.text not in text:
                # Nearly always.
                continue
            for start in places_of(text, spelling.text):
                yield spelling.extent(text, start, start + len(spelling.text))


def _spellings(key: str) -> Iterator[Spelling]:
    if _PLAIN.fullmatch(key):
        yield Spelling(key.encode())
        yield from _spelled_in_base64(key)
        return
    in_json = _spelled_in_json(key)
    yield from (Spelling(spelled.encode()) for spelled in in_json)
    for text in {*in_json[:_MOST_IN_BASE64], quote(key, safe="")}:
        yield from _spelled_in_base64(text)


# What neither JSON nor URLs spell in another way.
_PLAIN: Final = re.compile("[A-Za-z0-9_.~-]+")


def _spelled_in_json(key: str) -> list[str]:
    """The key, and how JSON, and JSON inside JSON, spells it.

    All encoders escape a quote and a backslash. Some escape a slash, too, so that there are two ways
    at each depth; but where a slash has the only backslashes, they are undone before the key is sought.
    """
    spelled, level = [key], [key]
    for _ in range(_DEEPEST_JSON if '"' in key or "\\" in key else 1):
        plain = [msgspec.json.encode(text).decode()[1:-1] for text in level]
        level = list(dict.fromkeys((*plain, *(text.replace("/", r"\/") for text in plain))))
        spelled += level
    return list(dict.fromkeys(spelled))


def _spelled_in_base64(text: str) -> Iterator[Spelling]:
    """The key wherever it begins among the three bytes that four characters stand for, in either alphabet."""
    raw = text.encode()
    for shift in range(3):
        bits = 8 * (shift + len(raw))
        whole = binascii.b2a_base64(bytes(shift) + raw, newline=False)
        always = whole[(0, 2, 3)[shift] : bits // 6]
        before, after = int(shift > 0), int(bits % 6 > 0)
        yield Spelling(always, before, after)
        if (in_url := always.translate(_URL_SAFE)) != always:
            yield Spelling(in_url, before, after)

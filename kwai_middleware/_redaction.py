"""What must never leave the process: masks API keys in text.

Shapes begin with a literal prefix, so that text without one costs a substring search and nothing
more.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from kwai_middleware._secret import Secret

__all__ = ["MASK", "mask_end", "mask_json", "mask_start", "mask_text"]

MASK: Final = "****"


def _bordered(prefix: str) -> str:
    """A prefix where it is not the end of a word or of a name, as in kiosk-7.

    Before it stands anything but a letter or a digit, unless that belongs to an escape of JSON or a
    URL. The prefix comes first in the pattern: a search for characters is fast, one for borders is not.
    """
    escapes = (r"\\[abfnrtv0]", r"\\u[0-9A-Fa-f]{4}", r"\\x[0-9A-Fa-f]{2}", "%[0-9A-Fa-f]{2}")
    borders = (f"(?<![A-Za-z0-9]{prefix})", *(f"(?<={escape}{prefix})" for escape in escapes))
    return f"{prefix}(?:{'|'.join(borders)})"


# OpenRouter, OpenAI, Anthropic and their kin; Groq; xAI; Google; Perplexity; Hugging Face; AWS.
_SHAPES: Final = re.compile(
    "|".join(
        (
            # No word goes on like these two.
            r"sk-or-v1-[0-9a-f]{32,}",
            r"sk-ant-[a-z]{3,8}[0-9]{2}-[A-Za-z0-9_-]{16,}",
            _bordered("sk-") + r"[A-Za-z0-9_-]{16,}",
            _bordered("gsk_") + r"[A-Za-z0-9]{16,}",
            _bordered("xai-") + r"[A-Za-z0-9]{16,}",
            _bordered("AIza") + r"[A-Za-z0-9_-]{30,}",
            _bordered("pplx-") + r"[A-Za-z0-9]{16,}",
            _bordered("hf_") + r"[A-Za-z0-9]{16,}",
            _bordered("AKIA") + r"[A-Z0-9]{16}",
        )
    )
)
_PREFIXES: Final = ("sk-", "gsk_", "xai-", "AIza", "pplx-", "hf_", "AKIA")
_BYTE_PREFIXES: Final = tuple(prefix.encode() for prefix in _PREFIXES)

# Visible characters that JSON spells as escapes without need, at any depth of JSON inside JSON.
_SPELLED: Final = re.compile(r"(?<!\\)\\+(?:u00([2-7][0-9A-Fa-f])|/)")
_SPELLED_BYTES: Final = re.compile(_SPELLED.pattern.encode())

_SHORTEST_KEY: Final = 8


def mask_text(text: str, secrets: Iterable[Secret] = (), names: Iterable[str] = ()) -> str:
    """Return `text` with everything that looks like a key, and each of `secrets`, masked.

    Args:
        text: Any text.
        secrets: Keys of any shape. One of fewer than 8 characters is no key of any vendor, but may
            well be a piece of a word, and is left alone.
        names: Texts that are known to be no keys, whatever they look like. In them, too, `secrets` are masked.
    """
    secrets = tuple(secrets)
    for key in _exact(secrets):
        text = text.replace(key, MASK)
    if ("\\u00" in text or "\\/" in text) and _SPELLED.search(text):
        text = _without_spelled_keys(text, secrets, _known(names))
    if any(prefix in text for prefix in _PREFIXES):
        text = _without_shapes(text, _known(names))
    return text


def mask_json(document: bytes, secrets: Iterable[Secret] = (), names: Iterable[str] = ()) -> bytes:
    """Return a JSON document with everything that looks like a key, and each of `secrets`, masked.

    It is a JSON document still, whatever characters a key is made of and however JSON spells them.
    Without a key in it, it is returned as it is, neither decoded nor copied.

    Args:
        document: UTF-8, one JSON value.
        secrets: As for `mask_text`.
        names: As for `mask_text`.
    """
    secrets = tuple(secrets)
    masked = document
    for key in _exact(secrets):
        for spelling in _spellings(key):
            masked = masked.replace(spelling.encode(), MASK.encode())
    if masked != document and not _is_json(masked):
        # A key such as `","model":"` or `17000000` has hit what is not text.
        masked = _TEXTS.sub(lambda text: _masked(text[0], secrets), document.decode(errors="replace")).encode()
    if (b"\\u00" in masked or b"\\/" in masked) and _SPELLED_BYTES.search(masked):
        # Latin-1 maps each byte to one character and back; keys and escapes are ASCII.
        text = masked.decode("latin-1")
        spelled_out = _without_spelled_keys(text, secrets, _known(names))
        masked = masked if spelled_out is text else spelled_out.encode("latin-1")
    if any(prefix in masked for prefix in _BYTE_PREFIXES):
        text = masked.decode("latin-1")
        shapeless = _without_shapes(text, _known(names))
        masked = masked if shapeless == text else shapeless.encode("latin-1")
    return masked


def mask_end(text: str, secrets: Iterable[Secret]) -> str:
    """Return a text that was cut with the beginning of a key masked, where it ends in one of 8 characters or more."""
    for key in _exact(secrets):
        for size in range(len(key), _SHORTEST_KEY - 1, -1):
            if text.endswith(key[:size]):
                return text[:-size] + MASK
    # A longer one is found by its shape.
    found = _BEGUN.search(text, max(len(text) - _LONGEST_BEGUN, 0))
    return text if found is None else text[: found.start()] + MASK


def mask_start(text: str, secrets: Iterable[Secret]) -> str:
    """Return a text that was cut with the end of a key masked, where it begins with one of 8 characters or more."""
    for key in _exact(secrets):
        for size in range(len(key), _SHORTEST_KEY - 1, -1):
            if text.startswith(key[-size:]):
                return MASK + text[size:]
    return text


_LONGEST_BEGUN: Final = 40
_BEGUN: Final = re.compile(rf"(?:{'|'.join(map(_bordered, _PREFIXES))})[A-Za-z0-9_-]{{4,}}\Z")


def _exact(secrets: Iterable[Secret]) -> list[str]:
    """The keys themselves, the longest first: one may be the beginning of another."""
    keys = (secret.reveal() for secret in secrets)
    return sorted((key for key in keys if len(key) >= _SHORTEST_KEY), key=len, reverse=True)


def _spellings(key: str) -> list[str]:
    """The key, and how JSON, and JSON inside JSON, spells it where it has a quote or a backslash."""
    spellings = [key]
    while len(spellings) < _MOST_SPELLINGS and ('"' in key or "\\" in key):
        spellings.append(msgspec.json.encode(spellings[-1]).decode()[1:-1])
    return spellings[::-1]


_MOST_SPELLINGS: Final = 3


def _known(names: Iterable[str]) -> frozenset[str]:
    """What looks like a key in the names that are known to be none."""
    return frozenset(found for name in names for found in _SHAPES.findall(name))


def _without_shapes(text: str, known: frozenset[str]) -> str:
    return _SHAPES.sub(lambda found: found[0] if found[0] in known else MASK, text)


def _without_spelled_keys(text: str, secrets: tuple[Secret, ...], known: frozenset[str]) -> str:
    """Mask what is a key once escapes are read as what they stand for; all else stays as it is spelled."""
    plain = _SPELLED.sub(_meant, text)
    spans = [found.span() for found in _SHAPES.finditer(plain) if found[0] not in known]
    for key in _exact(secrets):
        for spelling in _spellings(key):
            spans += _places(plain, spelling)
    if not spans:
        return text
    # Where each escape ends in the plain text, and how much longer the text is up to there.
    ends, surpluses = [0], [0]
    for escape in _SPELLED.finditer(text):
        surpluses.append(surpluses[-1] + len(escape[0]) - 1)
        ends.append(escape.end() - surpluses[-1])
    parts: list[str] = []
    position = 0
    for span in sorted(spans):
        start, end = (place + surpluses[bisect_right(ends, place) - 1] for place in span)
        if start >= position:
            parts += text[position:start], MASK
        position = max(position, end)
    return "".join((*parts, text[position:]))


def _meant(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else "/"


def _places(text: str, wanted: str) -> Iterator[tuple[int, int]]:
    start = text.find(wanted)
    while start >= 0:
        yield start, start + len(wanted)
        start = text.find(wanted, start + len(wanted))


def _is_json(document: bytes) -> bool:
    try:
        _skipping_decoder.decode(document)
    except msgspec.DecodeError:
        return False
    return True


_skipping_decoder: Final = msgspec.json.Decoder(msgspec.Raw)
_TEXTS: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


def _masked(spelled: str, secrets: tuple[Secret, ...]) -> str:
    """Mask exact keys in one text of a document, given and returned as JSON spells it."""
    text = json.loads(spelled)
    masked = text
    for key in _exact(secrets):
        masked = masked.replace(key, MASK)
    return spelled if masked == text else json.dumps(masked)

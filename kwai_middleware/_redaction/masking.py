"""Masks keys in texts and in JSON documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from kwai_middleware._joining import joined
from kwai_middleware._pace import breathe
from kwai_middleware._redaction.as_bytes import as_bytes, as_text
from kwai_middleware._redaction.readings import Reading, readings
from kwai_middleware._redaction.shapes import MASK, Span, shapes
from kwai_middleware._redaction.spellings import Keys
from kwai_middleware._secret import Secret
from kwai_middleware._splitting import look_into

__all__ = ["is_json", "mask_json", "mask_text"]


def mask_text(text: str, secrets: Iterable[Secret] | Keys = (), names: Iterable[str] = ()) -> str:
    """Return `text` with everything that looks like a key, and each of `secrets`, masked.

    Each of `secrets` is found as it is; as JSON and JSON inside JSON spell it; percent-encoded as in
    URLs, any of its characters or all, once or twice; and in base64 of either alphabet, anywhere in
    what was encoded, also when that was JSON or a URL. What only looks like a key is found as it is
    and behind escapes, not in base64: there nothing looks like a key. Base64 broken into lines is not
    looked into.

    Without a key in it, it is returned as it is.

    Args:
        text: Any text.
        secrets: Keys of any shape. One of fewer than 8 characters is no key of any vendor, but may
            well be a piece of a word, and is left alone. `Keys` where there are many texts.
        names: Texts that are known to be no keys, whatever they look like. In them, too, `secrets` are masked.
    """
    raw = as_bytes(text)
    spans = _spans(raw, Keys.of(secrets), names)
    return as_text(_masked(raw, spans)) if spans else text


def mask_json(document: bytes, secrets: Iterable[Secret] | Keys = (), names: Iterable[str] = ()) -> bytes:
    """Return a JSON document with everything that looks like a key, and each of `secrets`, masked.

    It is a JSON document still, of the same structure, whatever characters a key is made of and
    however JSON spells them. Without a key in it, it is returned as it is.

    Args:
        document: UTF-8, one JSON value.
        secrets: As for `mask_text`.
        names: As for `mask_text`.
    """
    keys = Keys.of(secrets)
    spans = _spans(document, keys, names)
    if not spans:
        return document
    masked = _masked(document, spans)
    breathe()
    if is_json(masked) and not any(_BARE_QUOTE.search(document, *span) for span in spans):
        return masked
    # A key such as `","model":"` or `17000000` has hit what is not text.
    texts = document.decode(errors="replace")
    return _TEXTS.sub(lambda spelled: _masked_inside(spelled[0], keys, names), texts).encode()


def _spans(text: bytes, keys: Keys, names: Iterable[str]) -> list[Span]:
    """Find what is to be masked."""
    known: frozenset[bytes] | None = None
    spans: list[Span] = []
    for reading in (Reading(text), *readings(text)):
        spans += map(reading.origin, keys.places(reading.text))
        breathe()
        for found in shapes(reading.text):
            known = _known(names) if known is None else known
            if reading.text[slice(*found)] not in known:
                spans.append(reading.origin(found))
    return spans


def _known(names: Iterable[str]) -> frozenset[bytes]:
    """What looks like a key in the names that are known to be none."""
    return frozenset(
        reading.text[slice(*found)]
        for name in map(as_bytes, names)
        for reading in (Reading(name), *readings(name))
        for found in shapes(reading.text)
    )


def _masked(text: bytes, spans: list[Span]) -> bytes:
    whole = memoryview(text)
    parts: list[bytes | memoryview] = []
    position = 0
    for start, end in sorted(spans):
        if start >= position:
            parts += whole[position:start], _MASK
        position = max(position, end)
        breathe()
    parts.append(whole[position:])
    return joined(parts)


def is_json(document: bytes) -> bool:
    """Say whether a document is one JSON value, of a depth that can be read."""
    try:
        look_into(document)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


_MASK: Final = MASK.encode()
_TEXTS: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_BARE_QUOTE: Final = re.compile(rb'(?<!\\)(?:\\\\)*"')


def _masked_inside(spelled: str, keys: Keys, names: Iterable[str]) -> str:
    """Mask keys in one text of a document, given and returned as JSON spells it."""
    breathe()
    try:
        text = json.loads(spelled, strict=False)
    except ValueError:
        # An escape that JSON does not know, in what was only skipped so far.
        return mask_text(spelled, keys, names)
    masked = mask_text(text, keys, names)
    return spelled if masked == text else json.dumps(masked)

"""Keys in what arrived: never shown whole, and found where they do not belong."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from kwai_middleware.sandbox.json_types import is_array, is_object, json_or_none
from kwai_middleware.sandbox.parameters import NESTED, PARAMETER_HEADERS

__all__ = ["KEY_HEADER", "KEY_MEMBER", "NO_KEY_MEMBER", "KeyRing", "bearer_key", "fingerprint", "header_keys"]

_MOST_KEYS: Final = 10_000
_SHORTEST: Final = 8
"""A shorter key is masked where keys belong; elsewhere it could be any word."""

_SHAPES: Final = r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}"
KEY_MEMBER: Final = re.compile(
    r"(?:api|access|private)_?key|secret|password|(?:^|_)token$|credentials?$", re.IGNORECASE
)
"""Names of members that are there to hold a key."""

NO_KEY_MEMBER: Final = re.compile(r"_(?:base|version|id)$|region|project|location")
"""Names of what a credential holds beside its key."""

KEY_HEADER: Final = re.compile(r"authorization|key|token|secret|cookie|x-data-(?:respan|keywordsai)", re.IGNORECASE)
"""Names of headers that may hold one."""

_CREDENTIAL_HEADERS: Final = (b"x-api-key", b"x-openrouter-api-key")


def fingerprint(key: str) -> str:
    """Return the first 8 hexadecimal digits of the key's SHA-256, as `Secret.fingerprint` does."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def bearer_key(authorization: str | None) -> str | None:
    """Return the key of an `Authorization: Bearer ...` header; None when there is none."""
    scheme, _, key = (authorization or "").partition(" ")
    key = key.strip()
    return key if scheme.lower() == "bearer" and key else None


def header_keys(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """Yield the key of every header with which a vendor's endpoint is asked for something."""
    for name, raw_value in headers:
        value = raw_value.decode("latin-1")
        key = bearer_key(value) if name == b"authorization" else value.strip()
        if key and (name == b"authorization" or name in _CREDENTIAL_HEADERS):
            yield key


class KeyRing:
    """The keys that arrived where keys belong; masks them wherever else they turn up.

    Bounded: the oldest key is forgotten.
    """

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None

    def remember(self, key: str | None) -> None:
        """Recognise `key` from now on."""
        if key is None or len(key) < _SHORTEST or key in self._keys:
            return
        self._keys[key] = None
        self._pattern = None
        if len(self._keys) > _MOST_KEYS:
            del self._keys[next(iter(self._keys))]

    def mask_text(self, text: str, found: set[str]) -> str:
        """Return `text` with each key replaced; the keys' fingerprints are added to `found`."""

        def replacement(match: re.Match[str]) -> str:
            found.add(fingerprint(match[0]))
            return f"[key {fingerprint(match[0])}]"

        return self._compiled().sub(replacement, text)

    def mask(self, value: object, found: set[str], member: str = "") -> object:
        """Return a JSON value with every key replaced.

        A member that is there to hold a key (`api_key`, ...) becomes the key's fingerprint; a key
        in any other text becomes `[key <fingerprint>]`. Text that holds parameters is read as the
        JSON that it is.

        Args:
            value: What JSON decodes to.
            found: Receives the fingerprint of each key.
            member: Name of the member that holds `value`.
        """
        if isinstance(value, str):
            if member and value and KEY_MEMBER.search(member):
                found.add(fingerprint(value))
                return fingerprint(value)
            if member in NESTED and is_object(within := json_or_none(value.encode("utf-8", "replace"))):
                return msgspec.json.encode(self.mask(within, found)).decode()
            return self.mask_text(value, found)
        if is_object(value):
            inherited = member if member == "customer_api_keys" else ""
            return {
                self.mask_text(name, found): self.mask(each, found, inherited or name) for name, each in value.items()
            }
        if is_array(value):
            return [self.mask(each, found, member) for each in value]
        return value

    def mask_headers(self, headers: Iterable[tuple[bytes, bytes]], found: set[str]) -> list[tuple[str, str]]:
        """Return the headers as text; what may hold a key as `Bearer <fingerprint>` or `<fingerprint>`."""
        shown: list[tuple[str, str]] = []
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            key = bearer_key(value)
            if name in PARAMETER_HEADERS:
                value = self._mask_parameters(value, found)
            elif not KEY_HEADER.search(name):
                value = self.mask_text(value, found)
            elif key is not None:
                value = f"{value.partition(' ')[0]} {fingerprint(key)}"
            else:
                value = fingerprint(value)
            shown.append((name, value))
        return shown

    def _mask_parameters(self, value: str, found: set[str]) -> str:
        """The base64 JSON of a parameter header as masked JSON text."""
        try:
            decoded = json_or_none(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            return fingerprint(value)
        return msgspec.json.encode(self.mask(decoded, found)).decode()

    def _compiled(self) -> re.Pattern[str]:
        if self._pattern is None:
            longest_first = sorted(self._keys, key=len, reverse=True)
            self._pattern = re.compile("|".join([_SHAPES, *map(re.escape, longest_first)]))
        return self._pattern

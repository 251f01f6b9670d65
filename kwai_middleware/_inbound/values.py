"""The rules for one header's value: what is taken as text, what as a key, and what is refused."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from kwai_middleware._secret import Secret, secret_of
from kwai_middleware.errors import ConfigurationError, InvalidHeader

__all__ = ["MAX_HEADER", "PLAIN", "checked_name", "has_comma", "key_from", "plain_text", "text_from"]

MAX_HEADER: Final = 4096
"""Longest value of a header, in bytes."""

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Line and paragraph separators and what turns the direction of writing are in no text: in a log they begin a line, or
# make one read as another.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

# What Unicode calls ignorable, and blanks that are not the space: with them one spelling has many twins.
_UNSEEN: Final = re.compile(
    "[\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u202f\u205f-\u206f\u2800\u3000"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


PLAIN: Final = bytes(byte if 0x21 <= byte <= 0x7E and byte != ord(",") else ord("a") for byte in range(256))
"""Translates visible ASCII but for the comma to itself, and nothing else.

To translate a value takes half the time of the checks that it is spared when it comes out as it was."""


def checked_name(label: str, name: object) -> str:
    """Return the name of a header in lower case.

    Raises:
        ConfigurationError: It is not one.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{label}: the name of a header, such as 'x-customer-id'")
    return name.lower()


def plain_text(value: bytes | None) -> str | None:
    """Return a value as text when one look shows that nothing is wrong with it: all is visible ASCII, and no comma.

    Most values are; of the others None says nothing.
    """
    if value is None or len(value) > MAX_HEADER or value.translate(PLAIN) != value:
        return None
    return value.decode()


def text_from(name: str, value: bytes | None, *, commas: bool, at_most: int, unseen: bool = True) -> str | None:
    """Return a header's value as text: UTF-8, in Unicode's composed form, without blanks around it.

    Args:
        name: Of the header.
        value: As received; None when it was sent more than once.
        commas: Whether the text may hold a comma. Servers join repeated headers with one.
        at_most: Bytes.
        unseen: Whether the text may hold characters that nobody sees, as emoji and some scripts do.

    Returns:
        None when there is nothing but blanks.

    Raises:
        InvalidHeader: The value is refused; the message names the header only.
    """
    if value is None:
        raise _sent_twice(name)
    if len(value) > at_most:
        raise InvalidHeader(f"The header {name} is longer than {at_most} bytes.", header=name)
    try:
        text = value.decode().strip(" \t")
    except UnicodeDecodeError:
        raise InvalidHeader(f"The header {name} is not valid UTF-8.", header=name) from None
    if not text.isprintable() and _CONTROL.search(text):
        raise InvalidHeader(f"The header {name} has a control character.", header=name)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).strip()
        if not unseen and _UNSEEN.search(text):
            raise InvalidHeader(f"The header {name} has a character that cannot be seen.", header=name)
    if not commas and "," in text:
        raise has_comma(name)
    return text or None


def key_from(name: str, value: bytes | None) -> Secret | InvalidHeader:
    """Return the key in a header's value, or what is wrong with it; the caller raises that.

    Not raised here, so that no traceback ever leads to a frame that holds the value. A header named
    `authorization` has the form `Bearer <key>`.

    Args:
        name: Of the header.
        value: As received; None when it was sent more than once.
    """
    plain = None if name == "authorization" else plain_text(value)
    if plain:
        return secret_of(plain)
    if value is None:
        return _sent_twice(name)
    if len(value) > MAX_HEADER:
        return InvalidHeader(f"The header {name} is longer than {MAX_HEADER} bytes.", header=name)
    text = value.decode("latin-1").strip(" \t")
    if name == "authorization":
        scheme, _, text = text.partition(" ")
        if scheme.lower() != "bearer":
            return InvalidHeader(f"The header {name} must have the form 'Bearer <key>'.", header=name)
        text = text.strip(" ")
    if "," in text:
        return has_comma(name)
    try:
        return Secret(text)
    except ValueError:
        return InvalidHeader(
            f"The header {name} is empty, or has a blank, a control or a non-ASCII character.", header=name
        )


def _sent_twice(name: str) -> InvalidHeader:
    return InvalidHeader(f"The header {name} was sent more than once.", header=name)


def has_comma(name: str) -> InvalidHeader:
    """Return the refusal of a header that may be two."""
    return InvalidHeader(f"The header {name} has a comma, as two headers of that name become one with.", header=name)

"""Refuses bodies in which the vendor might read a key or a customer that cannot be seen from here. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kwai_middleware._outbound.mentions import mentions_door
from kwai_middleware.errors import CannotAttribute

__all__ = ["JSON", "is_form", "refuse_what_is_hidden"]

JSON: Final = b"application/json"
"""What nearly all requests declare."""

# A structure in ASCII reads the same in all of these.
_HARMLESS_CHARSET: Final = re.compile(
    rb'\s*=\s*("?)(?:utf-8|utf8|us-ascii|ascii|iso-8859-1|latin-1|windows-1252)\1\s*(?:;|$)'
)


def refuse_what_is_hidden(
    body: bytes, headers: Mapping[str, bytes], *, is_object: bool, pinned: bool, mentions: bool | None = None
) -> None:
    """Refuse a body that might hold what is not seen.

    Args:
        body: All of it.
        headers: Those of the request that have a say.
        is_object: It has been read as a JSON object.
        pinned: Only the caller's key may pay.
        mentions: Whether it names a parameter, where somebody has looked already.

    Raises:
        CannotAttribute: It is compressed, has an unusual charset, or names a parameter and could not be read.
    """
    if is_object and headers.get("content-type") == JSON and "content-encoding" not in headers:
        return
    encoding = headers.get("content-encoding", b"").strip().lower()
    if encoding not in (b"", b"identity"):
        reason = "is compressed"
    elif not _is_harmless(headers.get("content-type", b"")):
        reason = "has a charset that is not UTF-8"
    elif not is_object and (mentions_door(body, payers=pinned) if mentions is None else mentions):
        reason = "is not one JSON object, but names a parameter of the gateway's that says whose call it is or who pays"
    else:
        return
    raise CannotAttribute(
        f"the request's body {reason}, so it could name another customer or key than the bound one; send a JSON"
        " object as json= or as UTF-8 bytes"
    )


def is_form(content_type: bytes) -> bool:
    """Say whether a body is declared as a form: then it is read as one, even if it is a JSON object as well."""
    content_type = content_type.lower()
    return b"multipart/" in content_type or b"form-urlencoded" in content_type


def _is_harmless(content_type: bytes) -> bool:
    """Say whether whoever reads the header reads no charset, or one of the usual ones.

    Of two charsets some take the first and some the last; one that is spelled in an odd way is none of the usual.
    """
    _, charset, rest = content_type.lower().partition(b"charset")
    return not charset or (b"charset" not in rest and _HARMLESS_CHARSET.match(rest) is not None)

"""The headers in which the gateway takes its parameters: base64 of a JSON object."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from kwai_middleware._outbound.json_members import Members, read_object

__all__ = ["PARAMETER_HEADER", "PARAMETER_HEADERS", "parameters_from", "parameters_to"]

PARAMETER_HEADER: Final = "x-data-respan-params"
PARAMETER_HEADERS: Final = (PARAMETER_HEADER, "x-data-keywordsai-params")
"""The vendor renames the second to the first."""


def parameters_from(value: bytes) -> tuple[bytes, Members] | None:
    """Return the JSON object in a header and its members; None when there is none.

    Some of the vendor's samples have the JSON itself there.
    """
    if value.lstrip().startswith(b"{"):
        return read_object(value)
    try:
        return read_object(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        return None


def parameters_to(document: bytes) -> str:
    """Return the header's value that carries a JSON object. It is as clear as before: base64 hides nothing."""
    return base64.b64encode(document).decode()

"""The trace id that a request brings: which header counts, and what is ignored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from kwai_middleware._slot import Slot

__all__ = ["TRACE_HEADERS", "RequestSlot", "trace_id_in"]

# W3C Trace Context, 3.2: neither id is all zeros, there is no version ff, version 00 has nothing more, and of a later
# one the part that is known counts, when a dash or nothing follows it.
_TRACE_PARENT: Final = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:\Z|-)"
)

# Visible ASCII. A comma is what WSGI servers make one header of two with.
_REQUEST_ID: Final = re.compile(rb"([!-+\--~]{1,128})\Z")

TRACE_HEADERS: Final = (b"traceparent", b"x-request-id")
"""Those that may bring one; the first that is well-formed and sent once counts."""


class RequestSlot(Slot):
    """The slot of a request, which may bring its trace id.

    Its headers are looked into only when the id is asked for, and never refused: they are not ours.
    """

    _headers: Iterable[Sequence[bytes | str]] = ()

    def _brought_id(self) -> str | None:
        return trace_id_in(self._headers)


def trace_id_in(headers: Iterable[Sequence[bytes | str]]) -> str | None:
    """Return the trace id in a request's headers: that of `traceparent`, else the `x-request-id`, else None.

    Anyone may send either, so an id groups calls and proves nothing.

    Args:
        headers: Names, in any case, and values as received; WSGI has texts.
    """
    sent: dict[bytes, list[bytes]] = {name: [] for name in TRACE_HEADERS}
    for header in headers:
        values = sent.get(_as_bytes(header[0]).lower())
        if values is not None:
            values.append(_as_bytes(header[1]).strip(b" \t"))
    for form, values in zip((_TRACE_PARENT, _REQUEST_ID), sent.values(), strict=True):
        found = form.match(values[0]) if len(values) == 1 else None
        if found is not None:
            return found[1].decode("ascii")
    return None


def _as_bytes(value: bytes | str) -> bytes:
    # Only ASCII is well-formed here, and that is the same in every encoding.
    return value.encode(errors="surrogatepass") if isinstance(value, str) else bytes(value)

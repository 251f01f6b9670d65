"""The gateway's parameters of a request: where they may stand, and which place wins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeGuard, get_args

from kwai_middleware.sandbox.connection import Connection
from kwai_middleware.sandbox.json_types import is_object, json_or_none, object_or_empty

__all__ = [
    "NESTED",
    "PARAMETER_HEADERS",
    "PRECEDENCES",
    "Precedence",
    "customer_of",
    "identifier_text",
    "is_precedence",
    "parameter_header",
    "parameters",
    "pass_through_parameters",
]

Precedence = Literal["2026-10", "2026-06"]
"""Which of the vendor's two documented orders holds, by the month of the reference that states it.

`2026-10`: `respan_params`, then the base64 header, then the top level. `2026-06`: the top level, then
`respan_params`, then the header.
"""

PRECEDENCES: Final[tuple[Precedence, ...]] = get_args(Precedence)
NESTED: Final = ("respan_params", "keywordsai_params")
"""Members that hold parameters; the first is stronger."""

PARAMETER_HEADERS: Final = ("x-data-respan-params", "x-data-keywordsai-params")
"""Headers that hold parameters, as the base64 of a JSON object; the first is stronger."""


def is_precedence(name: object) -> TypeGuard[Precedence]:
    """Say whether there is an order of that name."""
    return name in PRECEDENCES


def parameters(body: Mapping[str, object], header: str | None, precedence: Precedence) -> dict[str, object]:
    """Return the parameters of a request from all three places that may hold them.

    Args:
        body: Of the request.
        header: Value of `X-Data-Respan-Params` or its alias.
        precedence: Which place wins.
    """
    within = _merged([*_from_header(header), *_nested(body)])
    return within | dict(body) if precedence == "2026-06" else dict(body) | within


def pass_through_parameters(
    body: Mapping[str, object], header: str | None, precedence: Precedence
) -> dict[str, object]:
    """Return the parameters of a request in Anthropic's format.

    They stand in `metadata.respan_params`, says the guide, or in `respan_params` at the top level,
    says the reference; nobody says which of the two wins, so each order of the gateway takes
    another one. The top level itself is Anthropic's alone.

    Args:
        body: Of the request.
        header: Value of `X-Data-Respan-Params` or its alias.
        precedence: Which place wins.
    """
    top, metadata = list(_nested(body)), list(_nested(object_or_empty(body.get("metadata"))))
    weakest_first = [*metadata, *top] if precedence == "2026-06" else [*top, *metadata]
    return _merged([*_from_header(header), *weakest_first])


def parameter_header(connection: Connection) -> str | None:
    """Return the value of the header that holds a request's parameters."""
    values = (connection.header(name.encode()) for name in PARAMETER_HEADERS)
    return next((value for value in values if value is not None), None)


def customer_of(merged: Mapping[str, object]) -> str | None:
    """Return whom a call is attributed to: `customer_params` goes before `customer_identifier`."""
    within = object_or_empty(merged.get("customer_params")).get("customer_identifier")
    return identifier_text(merged.get("customer_identifier") if within is None else within)


def identifier_text(identifier: object) -> str | None:
    """Return an identifier as text: the vendor takes numbers too, and nothing else."""
    return str(identifier) if isinstance(identifier, str | int | float) else None


def _nested(holder: Mapping[str, object]) -> Iterator[object]:
    """Each container of parameters in an object, the weaker first; `respan_params` may be the JSON of one."""
    for name in reversed(NESTED):
        if name in holder:
            value = holder[name]
            yield json_or_none(value.encode()) if isinstance(value, str) and name == NESTED[0] else value


def _from_header(header: str | None) -> Iterator[object]:
    if header is not None:
        try:
            yield json_or_none(base64.b64decode(header, validate=True))
        except (binascii.Error, ValueError):
            yield None


def _merged(weakest_first: list[object]) -> dict[str, object]:
    """All containers in one; one that is no object is ignored silently, and takes the others with it."""
    merged: dict[str, object] = {}
    for container in weakest_first:
        if not is_object(container):
            return {}
        merged |= container
    return merged

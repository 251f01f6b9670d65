"""Printing: tables, JSON, and values in words that people read."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from kwai_middleware._delivery.one_line import shown

__all__ = [
    "ago",
    "complain",
    "counted",
    "in_bytes",
    "in_time",
    "moment",
    "note",
    "parsed_time",
    "print_json",
    "print_table",
    "say",
    "shown",
]

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])")


def say(text: str = "") -> None:
    """Print a line of the answer."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print a line beside the answer: what is told to people, and no part of what a program reads."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Print what is wrong."""
    note(f"error: {text}")


def print_json(document: Any) -> None:
    """Print one JSON document, in ASCII: no character in it is a terminal's command."""
    say(json.dumps(document, indent=2))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str | int]], indent: str = "") -> None:
    """Print rows under their heads, each column as wide as its content, numbers to the right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(heads, *cells, strict=True)]
    align = [_right if all(isinstance(row[column], int) for row in rows) else _left for column in range(len(heads))]
    for line in (heads, *cells):
        parts = [place(cell, width) for place, cell, width in zip(align, line, widths, strict=True)]
        say((indent + "  ".join(parts)).rstrip())


def counted(number: int, thing: str) -> str:
    """Return a number of things.

    >>> counted(1, "record"), counted(1200, "record")
    ('1 record', '1,200 records')
    """
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def in_bytes(number: int) -> str:
    """Return a size.

    >>> in_bytes(512), in_bytes(3_500_000)
    ('512 B', '3.3 MiB')
    """
    if number < 1024:
        return f"{number} B"
    size = number / 1024
    for unit in ("KiB", "MiB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def in_time(seconds: float) -> str:
    """Return a length of time, the two units that count.

    >>> in_time(7), in_time(8040), in_time(200_000)
    ('7 s', '2 h 14 min', '2 d 7 h')
    """
    whole = max(0, int(seconds))
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60), ("s", whole % 60))
    first = next((index for index, (_, number) in enumerate(units) if number), len(units) - 1)
    return " ".join(f"{number} {unit}" for unit, number in units[first : first + 2] if number) or "0 s"


def ago(when: float, now: float) -> str:
    """Return a moment with the time since then."""
    return f"{moment(when)} ({in_time(now - when)} ago)"


def moment(when: float) -> str:
    """Return seconds since 1970 as a time of UTC.

    >>> moment(0.5)
    '1970-01-01T00:00:00Z'
    """
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%SZ}"


def parsed_time(text: str) -> float:
    """Return the seconds in a length of time as one writes it.

    >>> parsed_time("15m"), parsed_time("1.5h"), parsed_time("7d")
    (900.0, 5400.0, 604800.0)

    Raises:
        ValueError: It is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("a time such as 90s, 15m, 2h or 7d")
    return float(found[1]) * _UNITS[found[2]]


def _width(text: str) -> int:
    """Columns on a terminal: some characters take two, marks above others none."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _left(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _right(text: str, width: int) -> str:
    return " " * (width - _width(text)) + text

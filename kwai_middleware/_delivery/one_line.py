"""Texts from elsewhere as one line of a log or a terminal has them."""

from __future__ import annotations

import json
from typing import Final

__all__ = ["quoted", "shown"]

_MARKS: Final = frozenset(' ="')


def shown(text: str) -> str:
    r"""Return a text from elsewhere so that it stands on one line and commands no terminal.

    >>> shown("acme\x1b[2J\n")
    'acme\\x1b[2J\\n'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def quoted(value: object) -> str:
    """Return what stands behind a name and `=` in a line, so that no value can bring a name of its own.

    >>> quoted("gpt-4o"), quoted("m billed_to=app")
    ('gpt-4o', '"m billed_to=app"')
    """
    if not isinstance(value, str):
        return str(value)
    return value if _MARKS.isdisjoint(value) else json.dumps(value, ensure_ascii=False)

"""What keys of known vendors look like.

Shapes begin with a literal prefix, so that text without one costs a substring search and nothing
more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["MASK", "begun", "shapes"]

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

_LONGEST_BEGUN: Final = 40
_BEGUN: Final = re.compile(rf"(?:{'|'.join(map(_bordered, _PREFIXES))})[A-Za-z0-9_-]{{4,}}\Z")


def shapes(text: str) -> Iterator[re.Match[str]]:
    """Find all that looks like a key."""
    return _SHAPES.finditer(text) if any(prefix in text for prefix in _PREFIXES) else iter(())


def begun(text: str) -> int | None:
    """Return where the last word of a text begins to look like a key; None when it does not.

    A longer one is found by its shape.
    """
    found = _BEGUN.search(text, max(len(text) - _LONGEST_BEGUN, 0))
    return None if found is None else found.start()

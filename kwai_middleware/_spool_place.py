"""Where records wait, as a setting names it."""

from __future__ import annotations

import os
from typing import Final

from kwai_middleware.errors import ConfigurationError

__all__ = ["AUTO", "MEMORY", "checked_place", "path_of"]

AUTO: Final = "auto"
MEMORY: Final = "memory:"
_SQLITE: Final = "sqlite://"


def checked_place(label: str, place: object) -> str:
    """Return a place in its one spelling: `auto`, `memory:` or `sqlite:///path`.

    Args:
        label: Names the setting in an error.
        place: As somebody wrote it.

    Raises:
        ConfigurationError: It is none of the three, or its path is not absolute.
    """
    if place in (AUTO, MEMORY):
        return str(place)
    if isinstance(place, str) and place.startswith(_SQLITE) and "\0" not in place:
        path = place.removeprefix(_SQLITE)
        # Two slashes more than needed is how SQLAlchemy writes an absolute path: the same place.
        if path.startswith("/") and path.strip("/"):
            folder = "/" if path.endswith("/") else ""
            return f"{_SQLITE}/{os.path.normpath(path).lstrip('/')}{folder}"
    raise ConfigurationError(
        f"{label}: '{AUTO}', '{MEMORY}' or 'sqlite:///path', the path absolute; one that ends in a slash is a folder"
    )


def path_of(place: str) -> str | None:
    """Return the path in a checked place; a folder ends in a slash. None for the other two."""
    return place.removeprefix(_SQLITE) if place.startswith(_SQLITE) else None

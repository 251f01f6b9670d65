"""Which file a spool is."""

from __future__ import annotations

import os

import platformdirs

from kwai_middleware._delivery.destination import Destination
from kwai_middleware._spool_place import AUTO, MEMORY, path_of

__all__ = ["default_folder", "file_for"]


def default_folder() -> str:
    """Return the folder in the user's state directory."""
    return platformdirs.user_state_dir("kwai-middleware", appauthor=False)


def file_for(place: str, destination: Destination) -> str | None:
    """Return the absolute path of the file that a checked place means for a destination; None for memory."""
    if place == MEMORY:
        return None
    path = default_folder() + "/" if place == AUTO else path_of(place)
    if path is None or not path.endswith("/"):
        return path
    return os.path.join(path, f"spool-{destination.digest[:12]}.db")

"""Which spool files a command is about, and each of them in turn, whatever is wrong with the others."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

from kwai_middleware._cli.output import complain, say, shown
from kwai_middleware._delivery.destination import Destination, destination_of
from kwai_middleware._delivery.disk import existing
from kwai_middleware._delivery.disk.errors import SpoolUnavailable
from kwai_middleware._delivery.disk.inspection import Inspection
from kwai_middleware._settings import Settings
from kwai_middleware._spool_place import checked_place

__all__ = ["SpoolFiles", "spool_files"]

_T = TypeVar("_T")

_SHORT: Final = 8
_NEEDED: Final = (
    "api_key",
    "base_url",
    "spool",
    "max_spool_bytes",
    "max_memory_bytes",
    "max_pending_age",
    "bulk_per_minute",
    "request_timeout",
)
"""The other settings may import code of the app, and what is wrong with them is no affair of these commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolFiles:
    """The files, and the app whose environment this is.

    Attributes:
        location: Where they were looked for; None when records wait in memory only.
        paths: The files that are there.
        settings: Of the app.
        unreadable: What is wrong with a path, so far.
    """

    location: str | None
    paths: list[str]
    settings: Settings
    unreadable: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def destination(self) -> Destination | None:
        """The app's own; None when the environment has no API key."""
        api_key = self.settings.api_key
        return None if api_key is None else destination_of(self.settings.base_url, api_key)

    def each(self, function: Callable[[Inspection], _T]) -> dict[str, _T]:
        """Return what `function` returns for each file; where it fails, that is noted in `unreadable`."""
        found: dict[str, _T] = {}
        for path in self.paths:
            try:
                with contextlib.closing(Inspection(path)) as inspection:
                    found[path] = function(inspection)
            except SpoolUnavailable as error:
                self.unreadable[path] = str(error)
        return found

    def is_empty_told(self) -> bool:
        """Say so when there is no file; whether there is none."""
        if self.paths or self.unreadable:
            return False
        if self.location is None:
            say("Records wait in the memory of the app (KWAI_SPOOL is memory:), so there is no file to look at.")
        else:
            say(f"There is no spool file at {shown(self.location)}: nothing waits.")
        return True

    def complain_of_unreadable(self) -> None:
        """Say what is wrong with files, on standard error."""
        for path, reason in self.unreadable.items():
            complain(shown(reason if path in reason else f"{path}: {reason}"))

    def name_of(self, destination: Destination) -> str:
        """Return the beginning of a digest, and whether it is that of the app's key."""
        own = " (this app's)" if destination == self.destination else ""
        return destination.digest[:_SHORT] + own

    def document_of(self, destination: Destination) -> dict[str, Any]:
        """Return the same for JSON."""
        return {
            "base_url": destination.base_url,
            "key": destination.digest[:_SHORT],
            "is_this_app": destination == self.destination,
        }


def spool_files(asked: argparse.Namespace, environ: Mapping[str, str]) -> SpoolFiles:
    """Find the files that the command line, or else the environment, names.

    Raises:
        ConfigurationError: A setting is not allowed.
    """
    settings = _settings(environ)
    place: str | None = asked.spool
    if place is None:
        location = existing.location_of(settings.spool)
    elif place.startswith("sqlite://"):
        location = existing.location_of(checked_place("--spool", place))
    else:
        location = os.path.abspath(place)
    if location is None:
        return SpoolFiles(location=None, paths=[], settings=settings)
    try:
        paths, unreadable = existing.found_in(location), dict[str, str]()
    except SpoolUnavailable as error:
        paths, unreadable = list[str](), {location: str(error)}
    return SpoolFiles(location=location, paths=paths, settings=settings, unreadable=unreadable)


def _settings(environ: Mapping[str, str]) -> Settings:
    variables = [
        variable for each in fields(Settings) if each.name in _NEEDED for variable in each.metadata["variables"]
    ]
    return Settings.from_env({name: environ[name] for name in variables if name in environ})

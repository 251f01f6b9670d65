"""Whether records can wait on disk, and whether any wait that should not. Makes no file."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from typing import Final

from kwai_middleware._cli.doctor_findings import Finding
from kwai_middleware._cli.output import counted, in_bytes, in_time
from kwai_middleware._delivery.destination import destination_of
from kwai_middleware._delivery.disk import existing, files, network, places
from kwai_middleware._delivery.disk.errors import SpoolUnavailable
from kwai_middleware._delivery.disk.inspection import DestinationState, Inspection
from kwai_middleware._settings import Settings

__all__ = ["check_spool"]

_ELSEWHERE: Final = "export KWAI_SPOOL=sqlite:///var/lib/app/kwai/"
_LEAST: Final = 64 * 1024 * 1024
_LONGEST_WAIT: Final = 3600.0


def check_spool(settings: Settings, mounts: str = "/proc/self/mountinfo", least: int = _LEAST) -> Iterator[Finding]:
    """Look at the place that the settings name, and at the file there if it is there."""
    location = existing.location_of(settings.spool)
    if location is None:
        what = "records wait in memory only: what is not delivered when the process dies is lost"
        yield Finding("spool", "note", "in-memory", what, "KWAI_SPOOL=memory:", "export KWAI_SPOOL=auto")
        return
    path = location
    if settings.api_key is not None:
        path = places.file_for(settings.spool, destination_of(settings.base_url, settings.api_key)) or location
    elif not location.endswith(".db"):
        path = os.path.join(location, "spool.db")
    problem = _problem(path, mounts)
    if problem is not None:
        what = f"records cannot wait on disk, so they wait in memory: {problem}"
        yield Finding("spool", "warning", "not-on-disk", what, path, _ELSEWHERE)
        return
    free = shutil.disk_usage(_nearest(path)).free
    if free < least:
        what = f"only {in_bytes(free)} are free on the disk where records wait"
        yield Finding("spool", "warning", "disk-full", what, path, _ELSEWHERE)
    elif free < settings.max_spool_bytes:
        what = f"{in_bytes(free)} are free on the disk, and max_spool_bytes lets records take more"
        change = f"export KWAI_MAX_SPOOL_BYTES={max(free // 2, 4 * 1024 * 1024)}"
        yield Finding("spool", "note", "disk-small", what, path, change)
    found = list(_in_file(path)) if os.path.lexists(path) else []
    yield from found
    if not found:
        there = "is there and can be written" if os.path.lexists(path) else "can be made"
        yield Finding("spool", "ok", "on-disk", f"{path} {there}; {in_bytes(free)} free")


def _problem(path: str, mounts: str) -> str | None:
    """Return why records cannot be kept at `path`."""
    folder = os.path.dirname(path)
    kind = network.on_network(_nearest(path), mounts)
    if kind is not None:
        return f"{folder} lies on a network's disk ({kind})"
    try:
        if os.path.lexists(folder):
            files.folder_for(path)
    except SpoolUnavailable as error:
        return str(error)
    nearest = _nearest(path)
    if not os.path.isdir(nearest):
        return f"{nearest} is no folder"
    if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
        return f"{nearest} cannot be written"
    return None


def _nearest(path: str) -> str:
    """Return the folder of a file, or the one in which it would be made."""
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return folder


def _in_file(path: str) -> Iterator[Finding]:
    found = os.lstat(path)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
        what = "others may read the prompts that wait in the spool, until the app opens it and tightens its rights"
        yield Finding("spool", "note", "loose-rights", what, path, f"chmod 600 {path}")
        return
    if not found.st_size:
        return
    try:
        with contextlib.closing(Inspection(path)) as inspection:
            states = inspection.states()
    except SpoolUnavailable as error:
        yield Finding("spool", "warning", "not-on-disk", str(error), path, _ELSEWHERE)
        return
    for state in states:
        yield from _waiting(path, state)


def _waiting(path: str, state: DestinationState) -> Iterator[Finding]:
    oldest = state.counters.oldest_pending
    url = state.destination.base_url
    if oldest is not None and oldest > _LONGEST_WAIT:
        what = f"{counted(state.counters.pending, 'record')} for {url} wait, the oldest for {in_time(oldest)}"
        yield Finding("spool", "warning", "records-wait", what, path, "python -m kwai_middleware spool drain")
    if state.rejected_kept:
        what = f"the logs API at {url} has refused {counted(state.rejected_kept, 'record')}"
        yield Finding(
            "spool", "warning", "records-rejected", what, path, "python -m kwai_middleware spool rejected, then purge"
        )

"""Which folders lie on a network's disk."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = ["on_network"]

_NETWORK: Final = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "fakeowner", "fuse.blobfuse", "fuse.blobfuse2", "fuse.ceph",
    "fuse.ceph-fuse", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.grpcfuse", "fuse.juicefs",
    "fuse.mountpoint-s3", "fuse.osxfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "fuse.vmhgfs-fuse", "glusterfs",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
})  # fmt: skip
"""File systems on which SQLite's shared memory between processes does not work, or not surely."""

_MOUNT_POINT: Final = 4
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")
"""Blanks, tabs, line feeds and backslashes in a mount point."""


def on_network(path: str, mounts: str = "/proc/self/mountinfo") -> str | None:
    """Return the kind of network file system that holds `path`; None when it is a local one, or nobody can tell."""
    try:
        lines = Path(mounts).read_bytes().splitlines()
    except OSError:
        return None
    place = os.fsencode(os.path.realpath(path))
    longest, kind = b"", b""
    for line in lines:
        before, separator, behind = line.partition(b" - ")
        words = before.split(b" ")
        if not separator or len(words) <= _MOUNT_POINT:
            continue
        point = _ESCAPED.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), words[_MOUNT_POINT])
        # Of two at the same place the later one covers the earlier one.
        if (place + b"/").startswith(point.rstrip(b"/") + b"/") and len(point) >= len(longest):
            longest, kind = point, behind.split(b" ")[0]
    name = os.fsdecode(kind)
    return name if name in _NETWORK else None

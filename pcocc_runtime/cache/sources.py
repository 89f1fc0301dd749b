"""Who may read a copy of a file: whoever can open the file, told by an open descriptor that nobody can forge.

A file is told by its device, inode and time of change. On a file system that root has mounted a user cannot choose these:
only its kernel or its servers set them. On one that a user has mounted, such as a FUSE of his, he could show another's.
"""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = "/proc/1/mountinfo"  # the host's: systemd takes /home away from the service that asks (ProtectHome)


def find_source(fd: int, mounts: str = MOUNTS) -> str | None:
    """Return what tells an open file from all others and from itself before a change; None where users could forge that."""
    info = os.fstat(fd)
    if not is_mounted_by_root(info.st_dev, Path(mounts).read_text(errors="surrogateescape")):
        return None
    return f"{info.st_dev:x}-{info.st_ino:x}-{info.st_ctime_ns:x}"


def is_mounted_by_root(device: int, mountinfo: str) -> bool:
    """Tell whether mounts (proc(5), /proc/PID/mountinfo) have a device, and none of these is a user's FUSE (mount.fuse(8), user_id)."""
    wanted, found = f"{os.major(device)}:{os.minor(device)}", False
    for line in mountinfo.splitlines():
        fields = line.split()
        if fields[2] == wanted:
            kind, _what, options = fields[fields.index("-") + 1 :][:3]
            if kind.startswith("fuse") and "user_id=0" not in options.split(","):
                return False
            found = True
    return found

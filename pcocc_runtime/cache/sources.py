"""Who may read the copy of a private layer: whoever can open its source, which an open descriptor proves.

A source is known by its device, inode and time of change. On a file system that root has mounted users cannot
choose these: only the kernel or the file servers set them. On one that a user has mounted, such as a FUSE, he
could imitate another's.
"""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = "/proc/1/mountinfo"  # the host's: the service itself does not see /home (ProtectHome)


def find_source(fd: int, mounts: str = MOUNTS) -> str | None:
    """Return what identifies an open file in its present state; None where users could forge that."""
    info = os.fstat(fd)
    if not is_mounted_by_root(info.st_dev, Path(mounts).read_text(errors="surrogateescape")):
        return None
    return f"{info.st_dev:x}-{info.st_ino:x}-{info.st_ctime_ns:x}"


def is_mounted_by_root(device: int, mountinfo: str) -> bool:
    """Tell whether a device is mounted (proc(5), mountinfo), and nowhere by a user's FUSE (mount.fuse(8), user_id)."""
    wanted, found = f"{os.major(device)}:{os.minor(device)}", False
    for line in mountinfo.splitlines():
        fields = line.split()
        if fields[2] == wanted:
            kind, _what, options = fields[fields.index("-") + 1 :][:3]
            if kind.startswith("fuse") and "user_id=0" not in options.split(","):
                return False
            found = True
    return found

"""A process without mounts: whatever users have mounted is not in its way, and no path leads it there."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import PurePath

from pcocc_runtime.system.libc import LIBC, mount, require

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18  # sys/mount.h
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8


def forget(directories: Iterable[PurePath]) -> list[int]:
    """Give this process, a child that ends soon, a mount namespace with nothing mounted; OSError when that fails.

    Returns the directories, opened in that namespace: no path leads from them into a mount. (From one that was
    opened before, it would.) So they can be renamed and removed; what other namespaces have mounted on them is
    unmounted then (Linux 3.18). No path through a user's directory is used. The kernel's own root (initramfs) cannot
    be detached: there each mount on it is, which does not affect other namespaces.
    """
    require("unshare", LIBC.unshare(_CLONE_NEWNS))
    mount("none", "/", _MS_REC | _MS_PRIVATE)
    found = [os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC) for one in directories]
    with open("/proc/self/mountinfo", "rb") as listing:
        mounts = [line.split(b" ", 5) for line in listing]
        for path in _plan_detaching(mounts):
            LIBC.umount2(path, _MNT_DETACH | _UMOUNT_NOFOLLOW)
        listing.seek(0)
        if any(line.split(b" ", 5)[4] != b"/" for line in listing):
            raise OSError(errno.EBUSY, "mounts cannot be detached here")
    return found


def _plan_detaching(mounts: list[list[bytes]]) -> list[bytes]:
    """Return what to detach, of lines of /proc/PID/mountinfo (proc(5)): the whole root, or all but a bare one."""
    bare = any(one[0] == one[1] for one in mounts if one[4] == b"/")
    paths = [re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), one[4]) for one in mounts]
    return [path for path in paths if path != b"/"] if bare else [b"/"]

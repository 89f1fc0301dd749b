"""Whether a QEMU on any host has a layer open, by the locks that QEMU puts on the files it has open."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from pcocc_runtime.system import locks

_QEMU_READS = 100  # the byte that QEMU locks of a file it reads (block/file-posix.c), the first of its locks
_QEMU_LOCKS = 200  # the bytes there may be locks of QEMU's on


def is_in_use(path: Path) -> bool:
    """Tell whether a QEMU on any host has the file open, by the locks it puts on it; OSError when that cannot be told."""
    return _is_locked(path) or (recall(path) and _is_locked(path))


def may_be_in_use(path: Path) -> bool:
    """Tell the same, and also when it cannot be told."""
    try:
        return is_in_use(path)
    except OSError:
        return True


def recall(path: Path) -> bool:
    """Have NFSv4 clients tell the server of the locks that they keep to themselves with a delegation; tell whether it was tried.

    A read delegation is called back for a change of the file, also for one that changes nothing (RFC 8881, 10.4.1).
    """
    try:
        path.chmod(stat.S_IMODE(path.stat().st_mode))
    except OSError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return locks.find_locked_by_others(fd, _QEMU_READS, _QEMU_LOCKS) is not None
    finally:
        os.close(fd)


def mark_in_use(fd: int) -> None:
    """Lock an open layer as a QEMU that reads it would: gc, on any host, then keeps it."""
    with contextlib.suppress(OSError):  # no locks there: QEMU goes on without them too
        locks.try_range(fd, _QEMU_READS, shared=True)

"""Whether a QEMU on any host has a layer open: it holds locks on every file that it has open."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from pcocc_runtime.system import shared_locks

_QEMU_READS = 100  # the byte that QEMU locks in a file it reads, the first of its locks (block/file-posix.c)
_QEMU_LOCKS = 200  # bytes from there on that QEMU may lock


def is_in_use(path: Path) -> bool:
    """Tell whether a QEMU on any host has the file open; OSError when that cannot be found out."""
    return _is_locked(path) or (recall(path) and _is_locked(path))


def may_be_in_use(path: Path) -> bool:
    """Tell whether a QEMU may have the file open: true also when that cannot be found out."""
    try:
        return is_in_use(path)
    except OSError:
        return True


def recall(path: Path) -> bool:
    """Make NFSv4 clients report locks that they keep to themselves (delegation); False when that cannot be tried.

    The server calls a read delegation back when the file is changed, even if the change changes nothing (RFC
    8881, 10.4.1).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # of the open file: the path may lead to another one by then
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return shared_locks.find_locked_by_others(fd, _QEMU_READS, _QEMU_LOCKS) is not None
    finally:
        os.close(fd)


def mark_in_use(fd: int) -> None:
    """Lock an open layer as a QEMU that reads it would, so that gc on any host keeps it."""
    with contextlib.suppress(OSError):  # the file system has no locks: QEMU goes on without them, too
        shared_locks.try_range(fd, _QEMU_READS, shared=True)

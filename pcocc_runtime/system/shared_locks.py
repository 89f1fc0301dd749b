"""Locks that hosts which share a file system see of each other. Linux has three kinds, and not all exclude each other:

    flock    flock(2), on a whole file, in `locks`.
    lockf    fcntl(2) F_SETLK, here on a whole file. Belongs to the process: children do not have it, and closing any
             descriptor of the file drops it. NFS servers keep it for all clients (flock(2) is turned into it there).
    range    fcntl(2) F_OFD_SETLK, on some bytes. Belongs to the open file, as with flock, and reaches other
             hosts as lockf does. QEMU's own image locks are of this kind.

lockf and range exclude each other; flock excludes neither (on local file systems). The kernel drops all of them
when their holder ends, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable

_FIRST_PAUSE = 0.01  # seconds
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64 bits (fcntl(2)): type, whence, first byte, length, pid

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def is_unsupported(error: OSError) -> bool:
    """Tell whether an error means that the file system cannot lock files at all."""
    return error.errno in _UNSUPPORTED


def try_lockf(fd: int) -> bool:
    """Take the exclusive lockf of a file that is open for writing, if no other process has it."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        # which of the two is the system's choice (fcntl(2), EAGAIN or EACCES)
        return False
    return True


def try_range(fd: int, first: int, *, shared: bool = False) -> bool:
    """Lock one byte for this open file, if nobody else has it; no file needs to be that long."""
    return _set_range(fd, fcntl.F_RDLCK if shared else fcntl.F_WRLCK, first)


def unlock_range(fd: int, first: int) -> None:
    """Unlock a byte."""
    _set_range(fd, fcntl.F_UNLCK, first)


def _set_range(fd: int, kind: int, first: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, first, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def find_locked(fd: int, first: int, length: int) -> int | None:
    """Return the first of these bytes that another open file has locked, by lockf or OFD; None when there is none."""
    return _find(fd, fcntl.F_OFD_GETLK, first, length)


def find_locked_by_others(fd: int, first: int, length: int) -> int | None:
    """Return the same, but ignore what this process itself has locked by lockf."""
    return _find(fd, fcntl.F_GETLK, first, length)


def _find(fd: int, command: int, first: int, length: int) -> int | None:
    answer = fcntl.fcntl(fd, command, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, length, 0))
    kind, _whence, found, _length, _pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else int(found)


def wait_until(attempt: Callable[[], bool], seconds: float, longest_pause: float = 2 * _FIRST_PAUSE) -> bool:
    """Try a lock again and again for so many seconds; tell whether we got it. The kernel itself would wait for ever."""
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while not attempt():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)  # nothing announces that a lock of another host is free
        pause = min(2 * pause, longest_pause)
    return True

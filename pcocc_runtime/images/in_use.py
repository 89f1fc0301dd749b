"""Whether a QEMU on any host has a layer open, by the locks that QEMU puts on the files it has open."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from pathlib import Path

_FLOCK = struct.Struct("hhqqi4x")  # struct flock, 64 bits (fcntl(2))
_QEMU_LOCKS = (100, 200)  # QEMU's block/file-posix.c locks bytes 100 to 299 of a file it has open: first byte, length


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
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *_QEMU_LOCKS, 0)
        answer: tuple[int, ...] = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        return answer[0] != fcntl.F_UNLCK
    finally:
        os.close(fd)

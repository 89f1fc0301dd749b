"""Locks on files. Linux has three kinds, which do not see each other the way one expects; they are told apart here only.

    flock    flock(2), on a whole file. Belongs to the open file: it goes on with the descriptor through fork and exec.
    lockf    fcntl(2) F_SETLK, here on a whole file. Belongs to the process: children do not have it, and closing any
             descriptor of the file drops it. NFS servers keep it for all clients (flock(2) is turned into it there).
    range    fcntl(2) F_OFD_SETLK, on some bytes. Belongs to the open file, as with flock, and reaches other hosts as lockf
             does. QEMU's own image locks are of this kind.

lockf and range meet each other, flock meets neither (on local file systems). The kernel drops all of them when their holder
ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import PurePath

_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64 bits (fcntl(2)): type, whence, first byte, length, pid
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_FIRST_PAUSE = 0.01  # seconds


def is_unsupported(error: OSError) -> bool:
    """Tell whether an error means that the file system cannot lock files at all."""
    return error.errno in _UNSUPPORTED


def try_flock(fd: int, *, shared: bool = False) -> bool:
    """Take the flock of an open file, if nobody has it."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def try_lockf(fd: int) -> bool:
    """Take the exclusive lockf of a file that is open for writing, if no other process has it."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # which of the two is the system's choice (fcntl(2), EAGAIN or EACCES)
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
    """Return the first of these bytes that another open file has locked, as lockf or as range; None when there is none."""
    return _find(fd, fcntl.F_OFD_GETLK, first, length)


def find_locked_by_others(fd: int, first: int, length: int) -> int | None:
    """Return the same, but for what this process has as lockf."""
    return _find(fd, fcntl.F_GETLK, first, length)


def _find(fd: int, command: int, first: int, length: int) -> int | None:
    answer = fcntl.fcntl(fd, command, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, length, 0))
    kind, _whence, found, _length, _pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else int(found)


def is_at(fd: int, path: PurePath) -> bool:
    """Tell whether a path still leads to this open file: whoever had its lock before may have deleted it."""
    try:
        info = os.fstat(fd)
        # an NFS client asks anew for the state of a file that it has locked; the name may still be known from before
        return info.st_nlink > 0 and os.path.samestat(info, os.lstat(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:  # another NFS client deleted it
            return False
        raise


def wait_until(attempt: Callable[[], bool], seconds: float, longest_pause: float = 2 * _FIRST_PAUSE) -> bool:
    """Try to lock again and again for so many seconds, and tell whether it was done: the kernel would wait without a limit."""
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while not attempt():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, longest_pause)
    return True


@contextlib.contextmanager
def locked(path: PurePath) -> Iterator[None]:
    """Hold the flock of a file, which is created when missing; its holder may delete it."""
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if is_at(fd, path):  # else its last holder deleted it while we waited
                yield
                return
        finally:
            os.close(fd)


@contextlib.contextmanager
def locked_if_free(path: PurePath) -> Iterator[bool]:
    """Hold that lock unless somebody else has it, and tell which."""
    fd = _open(path)
    try:
        yield try_flock(fd) and is_at(fd, path)
    finally:
        os.close(fd)


def _open(path: PurePath) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def locked_directory(path: PurePath) -> Iterator[None]:
    """Hold the flock of a directory itself, which leaves no file behind."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

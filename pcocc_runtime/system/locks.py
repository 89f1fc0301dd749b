"""Locks between processes of one host: flock(2), on a whole file. `shared_locks` has the others, and explains all.

A lock belongs to the open file: it stays with the descriptor through fork and exec, until its last holder ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import PurePath


def try_flock(fd: int, *, shared: bool = False) -> bool:
    """Take the flock of an open file, if nobody has it."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(fd: int, path: PurePath) -> bool:
    """Tell whether a path still leads to this open file: whoever had its lock before may have deleted it."""
    try:
        info = os.fstat(fd)
        # an NFS client asks the server again about a file that it has locked, but may still have the name cached
        return info.st_nlink > 0 and os.path.samestat(info, os.lstat(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:  # another NFS client deleted it
            return False
        raise


@contextlib.contextmanager
def locked(path: PurePath) -> Iterator[None]:
    """Hold the flock of a file, which is created when missing; its holder may delete it."""
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if is_at(fd, path):  # else its last holder has deleted it while we waited
                yield
                return
        finally:
            os.close(fd)


@contextlib.contextmanager
def locked_if_free(path: PurePath) -> Iterator[bool]:
    """Hold that lock unless somebody else has it; yield whether we hold it."""
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

"""Directory trees: deleted with all in them, however deep, and whoever changes them meanwhile."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # a directory cannot be renamed: the new name is taken


def empty(top: int) -> None:
    """Delete all in a directory, given as a descriptor, as far as this process may.

    The content of a directory in it is moved up before that is deleted, so depth costs no descriptors, memory or
    long paths. What may not be deleted, or has become something else meanwhile, is left.
    """
    numbers, idle = itertools.count(), 0
    while idle < 2:  # a name that has become something else is looked at once more
        idle += 1
        for name in _scan(top, "."):
            if _remove(top, name, numbers):
                idle = 0


def _scan(parent: int, name: str) -> Iterator[str]:
    """Yield the names in a directory as they are read, however many; none when it cannot be read as a directory."""
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except OSError:
        return
    try:
        with os.scandir(fd) as entries:
            yield from (entry.name for entry in entries)
    finally:
        os.close(fd)


def _remove(top: int, name: str, numbers: Iterator[int]) -> bool:
    """Delete what has a name in the directory, or make it emptier; return whether anything has changed."""
    if (done := _unlink(top, name)) is not None:
        return done
    if _rmdir(top, name):
        return True
    _unshut(top, name)
    try:
        inner = os.open(name, DIRECTORY, dir_fd=top)
    except OSError:
        return False
    changed = False
    try:
        for each in _scan(inner, "."):
            changed |= _lift(inner, each, top, numbers)
    finally:
        os.close(inner)
    return _rmdir(top, name) or changed


def _lift(inner: int, name: str, top: int, numbers: Iterator[int]) -> bool:
    """Delete a file in a directory of the directory, or move a directory up; return whether that was possible."""
    if (done := _unlink(inner, name)) is not None:
        return done
    _unshut(inner, name)
    for number in numbers:
        try:
            os.rename(name, str(number), src_dir_fd=inner, dst_dir_fd=top)
            return True
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.ENOKEY):  # it is tied to a layer of overlayfs, a project or a key
                return _remove(inner, name, itertools.count())
            if error.errno not in _TAKEN:
                return False
    return False


def _unshut(parent: int, name: str) -> None:
    """Open a directory for its owner, whose rights we have, so that it can be read and moved; a link is followed."""
    with contextlib.suppress(OSError):
        os.chmod(name, 0o700, dir_fd=parent)


def _unlink(parent: int, name: str) -> bool | None:
    """Delete a file; return whether that was possible, None for a directory."""
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        return None
    except OSError:
        return False
    return True


def _rmdir(parent: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=parent)
        return True
    return False

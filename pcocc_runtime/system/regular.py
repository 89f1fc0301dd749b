"""Regular files that somebody else may replace meanwhile, for example by a FIFO."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import PurePath


def open_regular(path: PurePath) -> io.FileIO:
    """Open a regular file for reading; OSError at once when the path leads to a FIFO or a device."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return open(fd, "rb", buffering=0)
    except BaseException:  # whatever it is, it is raised again
        os.close(fd)
        raise


def read_start(path: PurePath, size: int) -> bytes | None:
    """Return the first `size` bytes of a regular file, or None when it is not there."""
    try:
        with open_regular(path) as stream:
            return stream.read(size)
    except FileNotFoundError:
        return None

"""Files and directories: created as private ones, replaced atomically."""

from __future__ import annotations

import contextlib
import os
from pathlib import PurePath


def replace_file(path: PurePath, data: bytes, mode: int = 0o600) -> None:
    """Write a file under a temporary name and rename it into place."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as stream:
            stream.write(data)
        os.rename(temporary, path)
    except BaseException:  # also an interrupt: no part of a file stays
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def ensure_directory(path: PurePath, mode: int, uid: int = -1, gid: int = -1) -> None:
    """Create one directory (its parent exists) with exactly this mode and owner; refuse anything else at its path."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if os.path.islink(path):
            raise
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)

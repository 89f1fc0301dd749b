"""Files and directories: created private, replaced atomically, removed without following links."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any


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
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def open_regular(path: PurePath) -> io.FileIO:
    """Open a regular file for reading; OSError, without a wait, when the path is that of a FIFO or a device."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return open(fd, "rb", buffering=0)
    except BaseException:
        os.close(fd)
        raise


def read_start(path: PurePath, size: int) -> bytes | None:
    """Return the first `size` bytes of a regular file, or None when it is not there."""
    try:
        with open_regular(path) as stream:
            return stream.read(size)
    except FileNotFoundError:
        return None


def remove_unfinished(folder: PurePath, is_gone: Callable[[int], bool]) -> None:
    """Delete what killed processes left of `replace_file` in a directory; `is_gone` tells whether a pid has ended."""
    for path in Path(folder).glob("*.tmp"):
        pid = path.stem.rpartition(".")[2]
        if pid.isdigit() and is_gone(int(pid)):
            path.unlink(missing_ok=True)


def read_json(path: PurePath) -> Any:
    """Return the decoded content of a JSON file, None when it is missing or cut short."""
    try:
        return json.loads(Path(path).read_text())
    except (FileNotFoundError, ValueError):
        return None


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


def make_like(path: PurePath, model: PurePath) -> None:
    """Create a directory with the same mode as `model`; one that exists is left alone."""
    umask = os.umask(0)
    try:
        os.mkdir(path, os.stat(model).st_mode & 0o777)
    except FileExistsError:
        pass
    finally:
        os.umask(umask)


def remove_tree(path: PurePath) -> None:
    """Delete a directory and all in it; a link planted inside is removed, never followed (shutil, dir_fd based)."""
    import shutil  # not at the top: 4 ms of every VM's start

    if os.path.islink(path):
        os.unlink(path)
        return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def place_file(file: PurePath, path: PurePath, replace: bool) -> None:
    """Give a finished file of the same file system its final path; FileExistsError when that exists and is not to be replaced."""
    if not replace:
        try:
            os.link(file, path)
            return
        except FileExistsError:
            raise
        except OSError:  # no hard links here
            if os.path.lexists(path):
                raise FileExistsError(path) from None
    os.rename(file, path)

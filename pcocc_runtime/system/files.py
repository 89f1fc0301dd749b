"""Files and directories: made private, replaced atomically, locked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import stat
from collections.abc import Callable, Iterator
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
    """Open a regular file to be read; OSError, and no wait, when a FIFO or a device has its name."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return open(fd, "rb", buffering=0)
    except BaseException:
        os.close(fd)
        raise


def remove_unfinished(folder: PurePath, is_gone: Callable[[int], bool]) -> None:
    """Delete what `replace_file` was writing into a directory when its process, for which `is_gone` is true, was killed."""
    for path in Path(folder).glob("*.tmp"):
        pid = path.stem.rpartition(".")[2]
        if pid.isdigit() and is_gone(int(pid)):
            path.unlink(missing_ok=True)


def read_json(path: PurePath) -> Any:
    """Return the decoded content of a JSON file, or None when it is not there or was cut short."""
    try:
        return json.loads(Path(path).read_text())
    except (FileNotFoundError, ValueError):
        return None


def ensure_directory(path: PurePath, mode: int, uid: int = -1, gid: int = -1) -> None:
    """Create one directory (its parent exists) with exactly this mode and owner; refuse anything else there."""
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
    """Create a directory that as many people can use as `model`; one that is there already is left alone."""
    umask = os.umask(0)
    try:
        os.mkdir(path, os.stat(model).st_mode & 0o777)
    except FileExistsError:
        pass
    finally:
        os.umask(umask)


@contextlib.contextmanager
def locked(path: PurePath) -> Iterator[None]:
    """Hold an exclusive lock on a file, created when missing; its holder may delete it, the kernel drops it anyway."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, path):  # else its last holder deleted it while we waited
                yield
                return
        finally:
            os.close(fd)


@contextlib.contextmanager
def locked_if_free(path: PurePath) -> Iterator[bool]:
    """Hold that lock unless somebody else has it, and tell which."""
    with contextlib.ExitStack() as stack:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield _is_at(fd, path)


@contextlib.contextmanager
def locked_directory(path: PurePath) -> Iterator[None]:
    """Hold an exclusive lock on a directory itself, which leaves no file behind."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _is_at(fd: int, path: PurePath) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def place_file(file: PurePath, path: PurePath, replace: bool) -> None:
    """Give a finished file of the same file system its name; FileExistsError when it is taken and not to be replaced."""
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

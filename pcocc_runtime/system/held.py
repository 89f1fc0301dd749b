"""Directories held open: a path below one stays in that very directory, whatever others rename meanwhile.

The path is /proc/self/fd/N (proc(5)), and means the same to a child process that gets the descriptor
(`descriptors`).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

_HELD = re.compile(r"/proc/self/fd/([0-9]+)(?=[/\"']|\Z)")


@contextmanager
def hold(path: PurePath) -> Iterator[Path]:
    """Hold a directory; links in the path are followed, as usual."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with _kept(fd) as held:
        yield held


@contextmanager
def hold_below(parent: Path, name: str, *, links: bool = True) -> Iterator[Path]:
    """Hold a directory inside one that others may write to; OSError when they have put something else there.

    With `links`, a symbolic link is followed if it is root's or our own: another user's may lead to something that
    only we may change or read.
    """
    fd = os.open(parent / name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if stat.S_ISLNK(info.st_mode):
            if not links or info.st_uid not in (0, os.geteuid()):
                where = show(str(parent / name))
                raise OSError(
                    errno.ELOOP, f"it is a symbolic link of uid {info.st_uid}, which is not followed", where
                )
            fd, link = (
                os.open(parent / os.readlink("", dir_fd=fd), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
                fd,
            )
            os.close(link)
        elif not stat.S_ISDIR(info.st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), show(str(parent / name)))
    except BaseException:  # whatever it is, it is raised again
        os.close(fd)
        raise
    with _kept(fd) as held:
        yield held


@contextmanager
def _kept(fd: int) -> Iterator[Path]:
    try:
        yield Path(f"/proc/self/fd/{fd}")
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = show(error.filename)
        raise
    finally:
        os.close(fd)


def show(text: str) -> str:
    """Return a text in which paths of held directories are replaced by their usual ones, for messages."""
    return _HELD.sub(lambda match: _where(match[0]), text)


def _where(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return path


def descriptors(*texts: str) -> list[int]:
    """Return the descriptors of the held directories in these texts, to pass them on to a child process."""
    return sorted({int(match[1]) for text in texts for match in _HELD.finditer(text)})


def create_file(path: Path, data: bytes, mode: int) -> None:
    """Write a new file with this mode in a held directory, and flush it; a link there is replaced, never followed."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as stream:
        os.fchmod(fd, mode)
        stream.write(data)
        stream.flush()
        os.fsync(fd)


def flush(path: Path) -> None:
    """Return when a file, or the names in a directory, are on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""Files and directories that a user names: accessed with the user's own rights, without waiting for a FIFO."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from pcocc_runtime.errors import RequestError


@contextlib.contextmanager
def explaining(path: str, what: str) -> Iterator[None]:
    """Turn an error in reading `path` into a RequestError that calls the file `what`."""
    try:
        yield
    except OSError as error:
        raise RequestError(f"{what} {path} cannot be read: {error.strerror}", _hint(error, path)) from None


def read_user_start(path: str, size: int, what: str) -> bytes:
    """Return a regular file's first `size` bytes; RequestError, which calls it `what`, when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise RequestError(f"{what} {path} cannot be read: {error.strerror}", _hint(error, path)) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise RequestError(
                f"{what} {path} is not a regular file", "name a file, not a directory or device"
            )
        return _read_all(fd, size)
    except OSError as error:
        raise RequestError(f"{what} {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def read_ends(path: str, head: int, tail: int, what: str) -> tuple[bytes, bytes, int]:
    """Return the first and the last bytes of a regular file, and its size."""
    start = read_user_start(path, head, what)
    with explaining(path, what), open(path, "rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        return start, os.pread(stream.fileno(), tail, max(size - tail, 0)), size


def read_stdin(size: int) -> bytes:
    """Return the next bytes of standard input, none at its end."""
    if os.isatty(0):
        raise RequestError("standard input is a terminal", "pipe the file to this command")
    try:
        data = os.read(0, size)
        if data and stat.S_ISCHR(os.fstat(0).st_mode):
            reason = "standard input is a device, such as /dev/zero, that may never end"
            raise RequestError(reason, "pipe the file to this command")
        return data
    except OSError as error:
        raise RequestError(
            f"standard input cannot be read: {error.strerror}", "pipe the file to this command"
        ) from None


def _read_all(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data


def ensure_directory_readable(path: str, what: str) -> None:
    """Raise RequestError unless `path` is a directory that the user can list and enter."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise RequestError(f"{what} {path} cannot be read: {error.strerror}", _hint(error, path)) from error
    if not stat.S_ISDIR(mode):
        raise RequestError(f"{what} {path} is not a directory", "name a directory, not a file")
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        raise RequestError(f"{what} {path} cannot be read: Permission denied", f"see: ls -ld {path}")


def ensure_writable(path: str, what: str) -> None:
    """Raise RequestError unless the user may write a file."""
    if not os.access(path, os.W_OK, effective_ids=True):
        raise RequestError(f"you may not write {what} {path}", f"see: ls -l {path}")


def working_directory() -> str:
    """Return the working directory; RequestError when it was removed."""
    try:
        return os.getcwd()
    except OSError as error:
        hint = "change to another one, such as with: cd"
        raise RequestError(f"the working directory is gone: {error.strerror}", hint) from None


def absolute_path(path: str) -> Path:
    """Return the absolute form of a path, relative to the working directory."""
    return Path(path) if os.path.isabs(path) else Path(working_directory(), path)


def exists(path: str) -> bool:
    """Tell whether anything has that path."""
    return os.path.lexists(path)


def find_last_revision(path: str) -> str | None:
    """Return the newest disk in an image directory of pcocc 0.7: `image`, then `image-rev1` and so on."""
    try:
        names = os.listdir(path)
    except OSError:
        return None
    revisions = [int(found[1]) for name in names if (found := re.fullmatch(r"image-rev([0-9]{1,9})", name))]
    name = f"image-rev{max(revisions)}" if revisions else "image" if "image" in names else None
    return name and os.path.join(path, name)


def real_path(path: str) -> str:
    """Return a path with all links resolved, as far as the path exists."""
    return os.path.realpath(path)


def is_stream(path: str) -> bool:
    """Tell whether a path is that of a FIFO, a socket or a device."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _hint(error: OSError, path: str) -> str | None:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "check the path for typing errors"
    if error.errno == errno.ELOOP:
        return f"its symbolic links lead in a circle: ls -l {path}"
    return f"see: ls -l {path}" if isinstance(error, PermissionError) else None

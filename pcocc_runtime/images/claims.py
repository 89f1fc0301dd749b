"""Who is at work in a directory, across hosts: locks and work directories that end with their holder.

All of it rests on fcntl(2) byte-range locks: the kernel drops them when their process ends however it ends, and on NFS the
server keeps them for all clients (flock(2) is turned into them there). See docs/decisions/006-image-repository.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.system import files, trees

Rescue = Callable[[Path], None]  # takes out of a work directory what must not go with it
LOCK_WAIT = 60.0  # seconds; whoever holds a repository's lock does so for some file operations only
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked_path(path: Path, what: str) -> Iterator[None]:
    """Hold the exclusive lock of a file that stays; RequestError says who has `what` when it cannot be had in LOCK_WAIT."""
    fd = _open_lock(path)
    try:
        _wait_for_lock(fd, path, what)
        with contextlib.suppress(OSError):  # for others to read only, and the disk may be full
            os.truncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    """Open the file of a lock; it is made for as many people as its directory, at once: another may come the next moment."""
    umask = os.umask(0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _lock_mode(path.parent))
    finally:
        os.umask(umask)


def _wait_for_lock(fd: int, path: Path, what: str) -> None:
    deadline, pause = time.monotonic() + LOCK_WAIT, 0.01
    while not _try_lock(fd, path):
        if time.monotonic() > deadline:
            holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
            raise RequestError(f"{what} is busy: {holder} has held its lock for {LOCK_WAIT:g} s", "try again")
        time.sleep(pause)  # waiting in the kernel could not be given a limit
        pause = min(2 * pause, 0.5)


def _try_lock(fd: int, path: Path) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NodeError(
                f"the file system of {path} has no file locks", "mount it with them: Lustre with '-o flock', NFS without 'nolock'"
            ) from None
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _prefix(prefix: str) -> str:
    return f"{prefix}{os.uname().nodename}-{os.getpid()}-"


def _nothing(_work: Path) -> None:
    pass


@contextlib.contextmanager
def open_work(parent: Path, prefix: str, *, shared: bool, rescue: Rescue = _nothing) -> Iterator[Path]:
    """Make a directory for work in progress in `parent`; it goes with this block, or at a `sweep` after this process's end.

    A shared one can be swept by whoever may write to `parent`; any other is its user's own, as in /tmp.
    """
    while True:
        path = parent / f"{_prefix(prefix)}{os.urandom(4).hex()}"
        lock = path.with_name(path.name + ".lock")
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not (_claim(fd, lock) and _is_at(fd, lock)):
                continue  # a sweep came between making and locking it, and took it for a leftover
            try:
                if shared:
                    _adopt_mode(fd, parent)
                    files.make_like(path, parent)
                else:
                    path.mkdir(0o700)
                yield path
                return
            finally:
                rescue(path)
                trees.remove_tree(path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(lock)
        finally:
            os.close(fd)


def _claim(fd: int, lock: Path) -> bool:
    try:
        return _try_lock(fd, lock)
    except NodeError:
        os.unlink(lock)
        raise


def sweep(parent: Path, prefix: str, rescue: Rescue = _nothing) -> int:
    """Remove the work directories whose process is gone, on whatever host it was; return how many there were."""
    try:
        names = os.listdir(parent)
    except FileNotFoundError:
        return 0
    count = 0
    for name in names:
        if name.startswith(prefix) and name.endswith(".lock") and not name.startswith(_prefix(prefix)):
            with contextlib.suppress(PermissionError):  # another user's, in a shared directory
                count += _sweep_one(parent / name, rescue)
    return count


def _sweep_one(lock: Path, rescue: Rescue) -> bool:
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        if not (_try_lock(fd, lock) and _is_at(fd, lock)):
            return False
        work = lock.with_name(lock.name.removesuffix(".lock"))
        rescue(work)
        trees.remove_tree(work)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)
        return True
    finally:
        os.close(fd)


def list_work(parent: Path, prefix: str) -> list[Path]:
    """Return the work directories there are: after a `sweep`, those of living processes."""
    return [parent / name for name in os.listdir(parent) if name.startswith(prefix) and not name.endswith(".lock")]


def _lock_mode(model: Path) -> int:
    """Return the mode for those to lock a file who may write to `model`: a reader could keep a lock from them."""
    writers = stat.S_IMODE(model.stat().st_mode) & 0o222
    return writers | writers << 1


def _adopt_mode(fd: int, model: Path) -> None:
    mode = _lock_mode(model)
    if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
        with contextlib.suppress(PermissionError):  # another member of the group made it
            os.fchmod(fd, mode)


def _is_at(fd: int, path: Path) -> bool:
    try:
        info = os.fstat(fd)
        # an NFS client asks anew for the state of a file that it has locked; the name may still be known from before
        return info.st_nlink > 0 and os.path.samestat(info, os.stat(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:  # another NFS client deleted it
            return False
        raise

"""Who works in a directory, across hosts: locks and work directories that end with the process that holds them.

Both rest on lockf (system/locks.py): the kernel drops such a lock however its process ends, and NFS servers keep it for all
clients. See docs/decisions/006-image-repository.md.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.system import files, locks

Rescue = Callable[[Path], None]  # moves out of a work directory what must not be deleted with it
LOCK_WAIT = 60.0  # seconds; a repository's lock is held for a few file operations only
_LONGEST_PAUSE = 0.5  # seconds between two tries: over NFS each one asks the server


@contextlib.contextmanager
def locked_path(path: Path, what: str) -> Iterator[None]:
    """Hold the exclusive lock of a file that is never deleted; RequestError names the holder after LOCK_WAIT seconds."""
    fd = _open_lock(path)
    try:
        _wait_for_lock(fd, path, what)
        with contextlib.suppress(OSError):  # only a note for others, and the disk may be full
            os.truncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    """Open a lock file; a new one gets its mode at once, so that everybody can lock it who may write to its directory."""
    umask = os.umask(0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _lock_mode(path.parent))
    finally:
        os.umask(umask)


def _wait_for_lock(fd: int, path: Path, what: str) -> None:
    if not locks.wait_until(lambda: _try_lock(fd, path), LOCK_WAIT, _LONGEST_PAUSE):
        holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
        raise RequestError(f"{what} is busy: {holder} has held its lock for {LOCK_WAIT:g} s", "try again")


def _try_lock(fd: int, path: Path) -> bool:
    try:
        return locks.try_lockf(fd)
    except OSError as error:
        if not locks.is_unsupported(error):
            raise
        hint = "mount it with them: Lustre with '-o flock', NFS without 'nolock'"
        raise NodeError(f"the file system of {path} has no file locks", hint) from None


def _prefix(prefix: str) -> str:
    return f"{prefix}{os.uname().nodename}-{os.getpid()}-"


def _nothing(_work: Path) -> None:
    pass


@contextlib.contextmanager
def open_work(parent: Path, prefix: str, *, shared: bool, rescue: Rescue = _nothing) -> Iterator[Path]:
    """Make a directory for work in progress; it is deleted at the end of the block, or by a `sweep` if this process dies.

    A shared one can be swept by whoever may write to `parent`; any other only by its own user, as in /tmp.
    """
    while True:
        path = parent / f"{_prefix(prefix)}{os.urandom(4).hex()}"
        lock = path.with_name(path.name + ".lock")
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not (_claim(fd, lock) and locks.is_at(fd, lock)):
                continue  # a sweep came between creating and locking it, and removed it as a leftover
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
                files.remove_tree(path)
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
    """Remove the work directories whose process has ended, on whatever host it ran; return how many there were."""
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
        if not (_try_lock(fd, lock) and locks.is_at(fd, lock)):
            return False
        work = lock.with_name(lock.name.removesuffix(".lock"))
        rescue(work)
        files.remove_tree(work)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)
        return True
    finally:
        os.close(fd)


def list_work(parent: Path, prefix: str) -> list[Path]:
    """Return the work directories; after a `sweep`, all of them belong to living processes."""
    return [parent / name for name in os.listdir(parent) if name.startswith(prefix) and not name.endswith(".lock")]


def _lock_mode(model: Path) -> int:
    """Return a mode that lets exactly those lock a file who may write to `model`: anybody else could block them."""
    writers = stat.S_IMODE(model.stat().st_mode) & 0o222
    return writers | writers << 1


def _adopt_mode(fd: int, model: Path) -> None:
    mode = _lock_mode(model)
    if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
        with contextlib.suppress(PermissionError):  # another member of the group made it
            os.fchmod(fd, mode)

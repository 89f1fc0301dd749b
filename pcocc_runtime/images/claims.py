"""Who works in a directory, across hosts: locks and work directories that end with the process that holds them.

Both rest on lockf (system/locks.py): the kernel drops such a lock however its process ends, and NFS servers
keep it for all clients. See docs/decisions/006-image-repository.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.images import placing
from pcocc_runtime.system import held, locks, shared_locks, trees

Rescue = Callable[[Path], None]  # moves out of a work directory what must not be deleted with it
LOCK_WAIT = 60.0  # seconds; a repository's lock is held for a few file operations only
_LOCK, _NOTE = ".lock", ".note"  # end the names of the files beside a work directory
_LONGEST_PAUSE = 0.5  # seconds between two tries: over NFS each one asks the server


@contextlib.contextmanager
def locked_path(path: Path, what: str) -> Iterator[None]:
    """Hold the exclusive lock of a lasting file; RequestError after LOCK_WAIT seconds, which names the holder."""
    fd = _open_lock(path)
    try:
        _wait_for_lock(fd, path, what)
        if os.fstat(fd).st_nlink == 1:  # else others may have linked a file of ours to this name
            with contextlib.suppress(OSError):  # only a note for others, and the disk may be full
                os.truncate(fd, 0)
                os.pwrite(fd, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    """Open a lock file; a new one can be locked at once by all who may write to its directory."""
    umask = os.umask(0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _lock_mode(path.parent))
    finally:
        os.umask(umask)


def _wait_for_lock(fd: int, path: Path, what: str) -> None:
    if not shared_locks.wait_until(lambda: _try_lock(fd, path), LOCK_WAIT, _LONGEST_PAUSE):
        holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
        raise RequestError(f"{what} is busy: {holder} has held its lock for {LOCK_WAIT:g} s", "try again")


def _try_lock(fd: int, path: Path) -> bool:
    try:
        return shared_locks.try_lockf(fd)
    except OSError as error:
        if not shared_locks.is_unsupported(error):
            raise
        hint = "mount it with them: Lustre with '-o flock', NFS without 'nolock'"
        raise NodeError(f"the file system of {path} has no file locks", hint) from None


def _prefix(prefix: str) -> str:
    return f"{prefix}{os.uname().nodename}-{os.getpid()}-"


class HeldDirectory(NamedTuple):
    """A directory for work in progress, held open, and a file beside it for what others may know of it."""

    path: Path
    note: Path


def _nothing(_work: Path) -> None:
    pass


@contextlib.contextmanager
def open_work(
    parent: Path, prefix: str, *, shared: bool, private: bool = True, rescue: Rescue = _nothing
) -> Iterator[HeldDirectory]:
    """Make a directory for work in progress in `parent`, which is held; it is deleted at the end of the block.

    If this process dies, a `sweep` deletes it: a `shared` one by whoever may write to `parent`, any other only
    by its own user, as in /tmp. If it is not `private`, whoever may write to `parent` can write into it: what
    others put there must be harmless.
    """
    while True:
        name = f"{_prefix(prefix)}{os.urandom(4).hex()}"
        lock = parent / f"{name}{_LOCK}"
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not (_claim(fd, lock) and locks.is_at(fd, lock)):
                continue  # a sweep came between creating and locking it, and removed it as a leftover
            try:
                if shared:
                    _adopt_mode(fd, parent)
                with _make(parent, name, fd, private) as path:
                    try:
                        yield HeldDirectory(path, parent / f"{name}{_NOTE}")
                    finally:
                        rescue(path)
                        _empty(path)
                return
            finally:
                _forget(parent, name)
        finally:
            os.close(fd)


@contextlib.contextmanager
def _make(parent: Path, name: str, lock: int, private: bool) -> Iterator[Path]:
    """Make and hold a directory; RequestError when others have put another one, or a filled one, in its place."""
    placing.make_directory(parent / name, 0o700 if private else parent.stat().st_mode & 0o777)
    with held.hold_below(parent, name, links=False) as path:
        if path.stat().st_uid != os.fstat(lock).st_uid or os.listdir(path):
            message = (
                f"the work in {held.show(str(parent))} had to stop: somebody else has put a directory in the"
                " place of ours"
            )
            raise RequestError(message, f"see who may write there: ls -ld {held.show(str(parent))}")
        yield path


def _empty(work: Path) -> None:
    top = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trees.empty(top)
    finally:
        os.close(top)


def _forget(parent: Path, name: str) -> bool:
    """Remove an emptied work directory, its note and its lock; False when it is not empty, or another user's."""
    for remove, end in ((os.rmdir, ""), (os.unlink, _NOTE), (os.unlink, _LOCK)):
        path = parent / f"{name}{end}"
        try:
            remove(path)
        except FileNotFoundError:
            pass
        except NotADirectoryError:  # a file or a link that others have put there
            os.unlink(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR):
                raise
            return False
    return True


def _claim(fd: int, lock: Path) -> bool:
    try:
        return _try_lock(fd, lock)
    except NodeError:
        os.unlink(lock)
        raise


def sweep(parent: Path, prefix: str, rescue: Rescue = _nothing) -> int:
    """Remove the work directories whose process has ended, on whatever host it ran; return how many there were.

    `parent` is held. Another user's directory can be removed only when it is empty: its files are that user's alone.
    """
    count = 0
    for name in os.listdir(parent):
        if name.startswith(prefix) and name.endswith(_LOCK) and not name.startswith(_prefix(prefix)):
            with contextlib.suppress(PermissionError):  # another user's, in a shared directory
                count += _sweep_one(parent, name.removesuffix(_LOCK), rescue)
    return count


def _sweep_one(parent: Path, name: str, rescue: Rescue) -> bool:
    lock = parent / f"{name}{_LOCK}"
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO):  # gone, or nobody's lock
            return False
        raise
    try:
        if not (_try_lock(fd, lock) and locks.is_at(fd, lock)):
            return False
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), _held_alone(parent, name) as work:
            rescue(work)
            _empty(work)
        return _forget(parent, name)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _held_alone(parent: Path, name: str) -> Iterator[Path]:
    """Hold a directory that may have been replaced; a link in its place does not count as a directory."""
    try:
        with held.hold_below(parent, name, links=False) as path:
            yield path
    except OSError as error:
        raise NotADirectoryError(name) if error.errno == errno.ELOOP else error from None


def list_notes(parent: Path, prefix: str) -> list[Path]:
    """Return the notes beside work directories; after a `sweep`, all of them belong to living processes."""
    return [parent / name for name in os.listdir(parent) if name.startswith(prefix) and name.endswith(_NOTE)]


def _lock_mode(model: Path) -> int:
    """Return a mode that lets exactly those lock a file who may write to `model`: anybody else could block them."""
    writers = stat.S_IMODE(model.stat().st_mode) & 0o222
    return writers | writers << 1


def _adopt_mode(fd: int, model: Path) -> None:
    mode = _lock_mode(model)
    if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
        with contextlib.suppress(PermissionError):  # another member of the group made it
            os.fchmod(fd, mode)

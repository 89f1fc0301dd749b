"""Removes what a user has left in a job's directories, without root looking into it, and without a long wait.

A directory is renamed into a folder beside it that only root can enter, which is done at once whatever is in
it. There it is emptied by a process that has the rights of its owner and nothing else, for a limited time;
root removes what is empty then. What is left waits for the next helper. See
docs/decisions/020-removal-as-the-user.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import PurePath

from pcocc_runtime.system import drop, files, mounts, trees

SET_ASIDE = ".aside"
_O_TOP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_SECONDS = 5.0  # for what takes microseconds, on a busy node
_DEAD_SECONDS = 0.5  # a killed process may hang in the kernel, for as long as its user likes


def set_aside(path: PurePath) -> None:
    """Put a directory, whose parent is root's, out of the way of everything; nothing happens when there is none.

    OSError says that it is still there.
    """
    while _has(path.parent, path.name):  # again if another helper has just removed the empty folder
        name = f"{SET_ASIDE}/{path.name}.{os.urandom(8).hex()}"
        try:
            files.ensure_directory(path.parent / SET_ASIDE, 0o700, 0, 0)
            os.rename(path, path.parent / name)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.EBUSY or not _run_apart(partial(_rename_bare, path, name), _RENAME_SECONDS):
                raise


def _has(folder: PurePath, name: str) -> bool:
    """Tell whether a folder has a name, without a look at what it names: a user's FUSE program would be asked."""
    try:
        return name in os.listdir(folder)
    except FileNotFoundError:
        return False


def _rename_bare(path: PurePath, name: str) -> None:
    """Rename a directory on which its owner has mounted something."""
    (parent,) = mounts.forget([path.parent])
    os.rename(path.name, name, src_dir_fd=parent, dst_dir_fd=parent)


def finish(folders: Iterable[PurePath], seconds: float) -> bool:
    """Delete what was set aside in some folders, as far as it goes in a time; return whether all is gone."""
    asides = [folder / SET_ASIDE for folder in folders if os.path.isdir(folder / SET_ASIDE)]
    if asides:
        end = time.monotonic() + seconds
        with contextlib.suppress(OSError):  # no process can be started now: the next helper goes on
            _run_apart(partial(_delete_all, asides, end), seconds + _RENAME_SECONDS)
    for aside in asides:
        with contextlib.suppress(OSError):
            os.rmdir(aside)
    return not any(map(os.path.isdir, asides))


def _delete_all(asides: list[PurePath], end: float) -> None:
    """Delete what is in root's folders; in random order, so that one that never goes does not always hold up others."""
    folders = mounts.forget(asides)
    owned = [folder for folder in folders if os.fstat(folder).st_uid == 0 and not os.fstat(folder).st_mode & 0o077]
    every = [(os.urandom(4), folder, name) for folder in owned for name in os.listdir(folder)]
    for _random, folder, name in sorted(every):
        with contextlib.suppress(OSError):
            if (left := (end - time.monotonic()) / 2) > 0:
                _delete(folder, name, left)


def _delete(folder: int, name: str, seconds: float) -> None:
    """Delete a directory of root's folder, where nobody can exchange it; it is emptied with its owner's rights."""
    try:
        top = os.open(name, _O_TOP, dir_fd=folder)
    except NotADirectoryError:
        os.unlink(name, dir_fd=folder)
        return
    try:
        owner = os.fstat(top)
        os.chmod(name, 0o700, dir_fd=folder)
        _run_apart(partial(_empty_as, owner, top, seconds), seconds)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=folder)


def _empty_as(owner: os.stat_result, top: int, seconds: float) -> None:
    """Empty a directory with the rights of its owner, in a process that has nothing else open."""
    close_all_but(top)
    os.setsid()
    os.nice(10)
    for limit, most in ((resource.RLIMIT_CPU, int(seconds) + 1), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    drop.become(drop.Rights(owner.st_uid, owner.st_gid))
    trees.empty(top)


def close_all_but(kept: int) -> None:
    """Close every other descriptor, standard streams too."""
    os.closerange(0, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _run_apart(work: Callable[[], None], seconds: float) -> bool:
    """Do something in a child; return whether that was done in time, and without an error. A hung one is left alone."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            drop.die_with_parent()
            work()
            status = 0
        finally:
            os._exit(status)
    pidfd = os.pidfd_open(child)
    try:
        if not select.select([pidfd], [], [], seconds)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], _DEAD_SECONDS)
    finally:
        os.close(pidfd)
    found, status = os.waitpid(child, os.WNOHANG)
    return found == child and status == 0

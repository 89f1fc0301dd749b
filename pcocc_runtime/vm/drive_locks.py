"""Locks on disk images that VMs write in place, held by the running QEMU and gone with it.

Open file description locks (fcntl(2)): they survive the exec that makes a process QEMU, end with its last descriptor,
and reach other nodes over NFSv4, Lustre and GPFS. They lie on bytes that no image has, one for each job, so that who
meets a lock can tell whose it is. QEMU's own image locks lie elsewhere and cannot let in one job's VMs only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError

_JOBS = 1 << 62  # the byte of job 0
_TURN = _JOBS - 1  # held by who takes a lock and looks for others
_TURN_SECONDS = 10.0
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def lock_drive(path: str, mmp: str, job: int) -> int | None:
    """Lock a drive for one VM (mmp yes) or for the VMs of one job (cluster); return the descriptor that holds the lock.

    None with mmp no. NodeError when another VM has it, or the file system cannot lock.
    """
    if mmp == "no":
        return None
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NodeError(f"the drive {path} cannot be written here: {error.strerror}",
                        "drives must be on a file system that all nodes share, and yours to write") from None
    try:
        _lock(fd, path, mmp, job)
    except OSError as error:
        os.close(fd)
        if error.errno not in _NO_LOCKS:
            raise
        raise NodeError(f"the file system of the drive {path} cannot lock files: {error.strerror}",
                        "'mmp: no' in the template uses the drive without protection") from None
    except NodeError:
        os.close(fd)
        raise
    return fd


def _lock(fd: int, path: str, mmp: str, job: int) -> None:
    _await_turn(fd, path)
    holder = _take(fd, job, fcntl.F_WRLCK if mmp == "yes" else fcntl.F_RDLCK)
    _set(fd, fcntl.F_UNLCK, _TURN)
    if holder is not None:
        whose = f"of job {holder}" if holder != job else "of this job"
        raise NodeError(f"the drive {path} is in use by a VM {whose}", "end that VM first, or let several in with 'mmp: cluster'")


def _await_turn(fd: int, path: str) -> None:
    """One at a time, so that of two VMs that start together one wins; held for two system calls."""
    deadline = time.monotonic() + _TURN_SECONDS
    while not _set(fd, fcntl.F_WRLCK, _TURN):
        if time.monotonic() > deadline:
            raise NodeError(f"the drive {path} could not be locked within {_TURN_SECONDS:g} s", "try again")
        time.sleep(0.02)  # waiting in the kernel could not be given a limit


def _take(fd: int, job: int, kind: int) -> int | None:
    """Return the job that has the drive; None when it is ours now."""
    if not _set(fd, kind, _JOBS + job):
        return job
    for start, length in ((_JOBS, job), (_JOBS + job + 1, naming.MAX_JOB_ID - job)):
        if length and (found := _find(fd, start, length)) is not None:
            return found - _JOBS
    return None


def _set(fd: int, kind: int, byte: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _find(fd: int, start: int, length: int) -> int | None:
    """Return the first locked byte of a range, None when there is none."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, _whence, found, _length, _pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(found)

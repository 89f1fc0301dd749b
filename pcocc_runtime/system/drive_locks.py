"""Locks on disk images that VMs write in place, held by the running QEMU and gone with it.

Open file description locks (fcntl(2)): they survive the exec that makes a process QEMU, end with its last
descriptor, and reach other nodes over NFSv4, Lustre and GPFS. They lie on bytes that no image has, one for
each job, so that a lock shows which job holds it. QEMU's own image locks lie elsewhere, and cannot let in the
VMs of one job only.
"""

from __future__ import annotations

import os

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError
from pcocc_runtime.system import shared_locks

_JOBS = 1 << 62  # the byte of job 0
_TURN = _JOBS - 1  # the byte that is locked while a process takes a lock and looks for others
_TURN_SECONDS = 10.0


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
                        "drives must be on a file system that all nodes share, and writable by you") from None
    try:
        _lock(fd, path, mmp, job)
    except OSError as error:
        os.close(fd)
        if not shared_locks.is_unsupported(error):
            raise
        raise NodeError(f"the file system of the drive {path} cannot lock files: {error.strerror}",
                        "'mmp: no' in the template uses the drive without protection") from None
    except NodeError:
        os.close(fd)
        raise
    return fd


def _lock(fd: int, path: str, mmp: str, job: int) -> None:
    _await_turn(fd, path)
    holder = _take(fd, job, shared=mmp != "yes")
    shared_locks.unlock_range(fd, _TURN)
    if holder is not None:
        whose = f"of job {holder}" if holder != job else "of this job"
        raise NodeError(
            f"the drive {path} is in use by a VM {whose}",
            "end that VM first, or let several VMs share the drive with 'mmp: cluster'",
        )


def _await_turn(fd: int, path: str) -> None:
    """Wait for the lock that lets one process at a time in, so that one of two VMs that start together wins."""
    if not shared_locks.wait_until(lambda: shared_locks.try_range(fd, _TURN), _TURN_SECONDS):
        raise NodeError(f"the drive {path} could not be locked within {_TURN_SECONDS:g} s", "try again")


def _take(fd: int, job: int, *, shared: bool) -> int | None:
    """Return the job that has the drive already, None when this job has it now."""
    if not shared_locks.try_range(fd, _JOBS + job, shared=shared):
        return job
    for start, length in ((_JOBS, job), (_JOBS + job + 1, naming.MAX_JOB_ID - job)):
        if length and (found := shared_locks.find_locked(fd, start, length)) is not None:
            return found - _JOBS
    return None

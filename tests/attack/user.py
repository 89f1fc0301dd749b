"""Attacks are tried as a user of this machine that has nothing to do with root: what he runs, and what he sees."""

from __future__ import annotations

import ctypes
import os
import signal
import traceback
from collections.abc import Callable

ALICE, BOB = 61001, 61002  # uids, and gids, that no account has
PTRACE_ATTACH = 16  # linux/ptrace.h
_LIBC = ctypes.CDLL(None, use_errno=True)


def as_user(uid: int, attack: Callable[[], object]) -> bool:
    """Run an attack in a process of a user's; return whether it did not fail with an OSError."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            attack()
            status = 0
        except OSError:
            status = 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1), "the attack itself is wrong"
    return status == 0


def trace(pid: int) -> None:
    """Attach to a process as a debugger does; OSError when the kernel does not let us."""
    if _LIBC.ptrace(PTRACE_ATTACH, pid, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")


def read_memory(pid: int) -> None:
    """Open a process's memory; OSError when the kernel does not let us."""
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))


def started(run: Callable[[], object]) -> int:
    """Fork a process that does something and then waits to be killed; return its number once it has done that."""
    hears, tells = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run()
            os.write(tells, b"!")
            os.close(hears)
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(tells)
    try:
        assert os.read(hears, 1) == b"!"
    finally:
        os.close(hears)
    return child

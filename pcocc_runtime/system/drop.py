"""What root runs as a user: the one place where rights are given up for good.

A user may signal his processes, trace them (ptrace(2)) and read their memory, and a process that keeps root's
terminal can type on it (TIOCSTI). So nothing of root's goes along but what is named: no terminal, no session,
no environment, no descriptor, and the memory, a copy of root's until the exec, is closed to him until then.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import NamedTuple

from pcocc_runtime.system.libc import LIBC, require

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h


class Rights(NamedTuple):
    """Whose rights a process is to have."""

    uid: int
    gid: int
    groups: Iterable[int] = ()


def become(rights: Rights) -> None:
    """Give this process, a child just forked, a user's rights and no way to others; it dies with its parent.

    The saved uid stays root's until the memory is closed: with a user's ids alone the kernel would let him
    trace it, if only for a moment, where fs.suid_dumpable is not 0 (proc(5)). An exec opens the memory again:
    then it is the program's own.
    """
    os.setgroups(list(rights.groups))
    os.setresgid(rights.gid, rights.gid, rights.gid)
    os.setresuid(rights.uid, rights.uid, 0)
    _set(_PR_SET_DUMPABLE, 0)
    _set(_PR_SET_NO_NEW_PRIVS, 1)
    die_with_parent()
    os.setresuid(rights.uid, rights.uid, rights.uid)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends; a change of rights takes that back."""
    _set(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _set(option: int, value: int) -> None:
    require("prctl", LIBC.prctl(option, value, 0, 0, 0))

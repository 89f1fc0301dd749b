"""What root runs as a user: the one place where rights are given up for good.

A user may signal his processes, trace them (ptrace(2)) and read their memory, and a process that keeps root's
terminal can type on it (TIOCSTI). So nothing of root's is passed on unless it is named: no terminal, no session, no
environment, no descriptor. Until the exec, the memory is a copy of root's, and the user cannot read it.
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

    The saved uid stays root's until the memory is closed: with only the user's ids, the kernel would let the user
    trace it for a moment, if fs.suid_dumpable is not 0 (proc(5)). An exec opens the memory again, which is the
    program's own then.
    """
    os.setgroups(list(rights.groups))
    os.setresgid(rights.gid, rights.gid, rights.gid)
    os.setresuid(rights.uid, rights.uid, 0)
    _set(_PR_SET_DUMPABLE, 0)
    _set(_PR_SET_NO_NEW_PRIVS, 1)
    die_with_parent()
    os.setresuid(rights.uid, rights.uid, rights.uid)


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends; a change of rights cancels this."""
    _set(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _set(option: int, value: int) -> None:
    require("prctl", LIBC.prctl(option, value, 0, 0, 0))

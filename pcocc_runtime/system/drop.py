"""What root runs as a user: the one place where rights are given up for good.

A user may signal his processes, trace them (ptrace(2)) and read their memory, and a process that keeps root's terminal can type
on it (TIOCSTI). So nothing of root's goes along but what is named: no terminal, no session, no environment, no descriptor, and
the memory, a copy of root's until the exec, is closed to him until then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, NamedTuple

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h
_END_SECONDS = 2.0  # for a program that is asked to end
_LIBC = ctypes.CDLL(None, use_errno=True)


class Rights(NamedTuple):
    """Whose rights a process is to have."""

    uid: int
    gid: int
    groups: Iterable[int] = ()


class Ended(NamedTuple):
    """What a program has left: its exit status, and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


def become(rights: Rights) -> None:
    """Give this process, a child just forked, a user's rights and no way to others; it dies with its parent.

    The saved uid stays root's until the memory is closed: with a user's ids alone the kernel would let him trace it, if only
    for a moment, where fs.suid_dumpable is not 0 (proc(5)). An exec opens the memory again: then it is the program's own.
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
    if _LIBC.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def run_as(rights: Rights, argv: Sequence[str], env: Mapping[str, str], *, seconds: float, most: int = 1 << 26) -> Ended:
    """Run a program as a user in a session of its own, with this environment and nothing else; return what it has left.

    OSError when it cannot be started; subprocess.TimeoutExpired when it runs for longer or writes more than `most` bytes, after
    it has been ended. What interrupts this process ends it too, by the SIGINT that it cannot get from the terminal any more.
    """
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env), cwd="/", close_fds=True,
        start_new_session=True, preexec_fn=lambda: become(rights),
    )  # fmt: skip
    assert child.stdout and child.stderr
    with child.stdout, child.stderr:
        try:
            found = _collect((child.stdout, child.stderr), most, time.monotonic() + seconds)
            if found is None:
                raise subprocess.TimeoutExpired(argv, seconds)
            return Ended(child.wait(_END_SECONDS), *found)
        finally:
            _end(child)


def _collect(streams: tuple[IO[bytes], IO[bytes]], most: int, end: float) -> tuple[bytes, bytes] | None:
    """Return all that is written to two pipes; None when that is too much, or not all by `end` of the monotonic clock."""
    found = {stream: bytearray() for stream in streams}
    with selectors.DefaultSelector() as waiting:
        for stream in streams:
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0.0, end - time.monotonic()))
            for key, _events in ready:
                data = os.read(key.fd, 1 << 16)
                found[key.fileobj] += data  # type: ignore[index]
                if not data:
                    waiting.unregister(key.fileobj)
            if not ready or sum(map(len, found.values())) > most:
                return None
    return bytes(found[streams[0]]), bytes(found[streams[1]])


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):  # one that not even this ends is not waited for
        if child.poll() is None:
            child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_END_SECONDS)

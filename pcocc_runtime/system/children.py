"""Starts a VM's keeper beside its QEMU, as a process that QEMU does not know."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Sequence

_GREETING_SECONDS = 5


def start_keeper(argv: Sequence[str], keep: Iterable[int], after: int) -> None:
    """Start the keeper as a grandchild, so that QEMU has no child to reap; it inherits only the descriptors `keep`.

    It starts when `after` can be read, which is when QEMU sends its greeting: before that, a Python would only take
    CPU time from QEMUs that start.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        keep_only(set(keep))
        if os.fork():
            os._exit(0)
        _await(after)
        os.execve(argv[0], list(argv), {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
    finally:
        os._exit(127)


def _await(fd: int) -> None:
    """Wait until a descriptor can be read or its other end is closed, but no longer than a few seconds."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and not _is_inheritable(int(name)):
            os.close(int(name))
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(_GREETING_SECONDS * 1000)


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return True  # the descriptor of the listing itself


def keep_only(kept: set[int]) -> None:
    """Let an exec of this process pass on only the standard streams and `kept`."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            _set_inheritable(int(name), int(name) in kept)


def _set_inheritable(fd: int, inheritable: bool) -> None:
    try:
        os.set_inheritable(fd, inheritable)
    except OSError:
        pass  # the descriptor of the listing itself

"""Whether commands run in a VM: each of their tasks holds a lock on a file in its directory, as long as it lives.

Imports little: it is on the way of every VM step, and in every keeper.
"""

from __future__ import annotations

import fcntl
import os

_FILE = "used"


def mark_command(directory: str) -> None:
    """Note as long as this process lives that it runs a command in a VM; nothing where that VM is on another node."""
    try:
        fd = os.open(f"{directory}/{_FILE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    fcntl.flock(fd, fcntl.LOCK_SH)  # who looks has it for a moment


def has_commands(directory: str) -> bool:
    """Tell whether a command runs in a VM, as far as it was started on the VM's node."""
    try:
        fd = os.open(f"{directory}/{_FILE}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False

"""Whether anybody still writes about a VM: its launcher, then its keeper, lock a file in its directory.

The lock (flock(2)) belongs to the open file, so it goes with the descriptor from the launcher to the keeper that it
starts; QEMU does not get it. The kernel drops the lock however they end: when nobody has it, nothing more will be
written about the VM.
"""

from __future__ import annotations

import os
from pathlib import PurePath

from pcocc_runtime.system.locks import try_flock

_FILE = "watch"


def start_watch(directory: PurePath) -> int:
    """Make the file of a VM, and return the descriptor that holds the lock."""
    path = directory / _FILE
    fd = os.open(f"{path}.new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try_flock(fd)  # the file is new: nobody else has it
    os.rename(f"{path}.new", path)  # so that the file is never there without its lock
    return fd


def is_abandoned(directory: PurePath) -> bool:
    """Tell whether launcher and keeper of a VM have ended; False if there has never been one."""
    try:
        fd = os.open(directory / _FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return try_flock(fd, shared=True)
    finally:
        os.close(fd)

"""Makes network namespaces, where ip(8) looks for them; the calling thread enters them for a block, and comes back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import PurePath

from pcocc_runtime.system.libc import LIBC, mount, require

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000  # linux/mount.h


@contextlib.contextmanager
def inside(path: PurePath) -> Iterator[None]:
    """Let the block, and what it starts, run in the network namespace mounted at `path`; OSError without one."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def create(path: PurePath) -> None:
    """Make a network namespace mounted at `path`, which does not exist, as `ip netns add` does; OSError if it fails.

    This process itself does it: another program would go on after this process was killed.
    """
    os.makedirs(path.parent, 0o755, exist_ok=True)
    _share(path.parent)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        require("unshare", LIBC.unshare(_CLONE_NEWNET))
        try:
            mount("/proc/thread-self/ns/net", path, _MS_BIND)
        finally:
            _enter(home)
    finally:
        os.close(home)


def _share(directory: PurePath) -> None:
    """Let mounts below a directory be seen, and later be unmounted, in every mount namespace made from this one."""
    try:
        mount("", directory, _MS_SHARED | _MS_REC)
    except OSError:  # it is not a mount point yet
        mount(str(directory), directory, _MS_BIND | _MS_REC)
        mount("", directory, _MS_SHARED | _MS_REC)


def _enter(fd: int) -> None:
    require("setns", LIBC.setns(fd, _CLONE_NEWNET))

"""How QEMU can read and write disks here without one waiting thread for each request: tried rather than guessed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Set

from pcocc_runtime.system.libc import LIBC

_SYS_IO_URING_SETUP = 425  # on all architectures
_SYS_IO_SETUP, _SYS_IO_DESTROY = 206, 207  # x86-64
_ENTRIES = 128  # as many as QEMU asks for (block/io_uring.c)
_EVENTS = 1024  # the same (block/linux-aio.c)
_PARAMETERS = 120  # bytes of struct io_uring_params (linux/io_uring.h)


def find_ways(has: Set[str]) -> tuple[str, ...]:
    """Return the values of aio that QEMU and the kernel allow this user, the best first; threads always work.

    A sysctl (kernel.io_uring_disabled, fs.aio-max-nr), a filter or too little lockable memory may forbid one;
    asking takes a tenth of a millisecond.
    """
    tries = {"io_uring": _has_ring, "native": _has_context}
    return tuple(way for way, works in tries.items() if way in has and works())


def _has_ring() -> bool:
    ring = LIBC.syscall(_SYS_IO_URING_SETUP, _ENTRIES, ctypes.create_string_buffer(_PARAMETERS))
    if ring >= 0:
        os.close(ring)
    return bool(ring >= 0)


def _has_context() -> bool:
    context = ctypes.c_ulong(0)
    if LIBC.syscall(_SYS_IO_SETUP, _EVENTS, ctypes.byref(context)):
        return False
    LIBC.syscall(_SYS_IO_DESTROY, context)
    return True

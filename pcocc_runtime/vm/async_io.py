"""How QEMU reads and writes disks here: by io_uring where it may, tried rather than guessed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Set

from pcocc_runtime.system.libc import LIBC

_SYS_IO_URING_SETUP = 425  # on all architectures
_ENTRIES = 128  # as many as QEMU asks for (block/io_uring.c)
_PARAMETERS = 120  # bytes of struct io_uring_params (linux/io_uring.h)


def find_aio(has: Set[str]) -> str | None:
    """Return io_uring where QEMU has it and the kernel gives this user such a ring, else None.

    A sysctl (kernel.io_uring_disabled), a filter or too little lockable memory may forbid it; to ask takes a
    tenth of a millisecond.
    """
    if "io_uring" not in has:
        return None
    ring = LIBC.syscall(_SYS_IO_URING_SETUP, _ENTRIES, ctypes.create_string_buffer(_PARAMETERS))
    if ring < 0:
        return None
    os.close(ring)
    return "io_uring"

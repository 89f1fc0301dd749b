"""System calls that Python 3.11 has no function for, through the C library."""

from __future__ import annotations

import ctypes
import os
from pathlib import PurePath

LIBC = ctypes.CDLL(None, use_errno=True)


def require(what: str, result: int) -> None:
    """Raise OSError when a call of `LIBC` has failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: str | PurePath, flags: int, kind: str = "none", options: str = "") -> None:
    """Mount, or change a mount (mount(2)); OSError when that fails."""
    words = [os.fsencode(word) for word in (source, target, kind)]
    require(f"mount {target}", LIBC.mount(*words, ctypes.c_ulong(flags), options.encode()))

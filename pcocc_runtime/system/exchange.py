"""Two names of one file system exchanged at once (renameat2(2), RENAME_EXCHANGE)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AT_FDCWD, _EXCHANGE = -100, 2


def exchange_names(one: Path, other: Path) -> None:
    """Have each of two paths name what the other has named; OSError when the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))

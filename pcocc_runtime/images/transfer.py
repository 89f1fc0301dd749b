"""Bytes from one file to another, counted and summed on the way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from pcocc_runtime.errors import RequestError
from pcocc_runtime.progress import Advance
from pcocc_runtime.system import files

_CHUNK = 1 << 20
_ZERO = bytes(_CHUNK)
LONGEST = 64 << 40  # bytes: no format's disks are larger but qcow2's and raw ones; zeros take no room, so no disk fills up with them


def hash_file(path: Path, watch: Advance, algorithm: str = "sha256") -> str:
    """Return the hexadecimal sum of a file."""
    machine = hashlib.new(algorithm)
    with files.open_regular(path) as stream:
        total = os.fstat(stream.fileno()).st_size
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        done = 0
        while count := stream.readinto(buffer):
            machine.update(view[:count])
            done += count
            watch(done, total)
    return machine.hexdigest()


def copy(
    read: Callable[[int], bytes], target: Path, total: int, watch: Advance, algorithm: str = "sha256", longest: int = LONGEST
) -> tuple[int, str]:
    """Write what `read(size)` gives, until it gives nothing, to a new file with holes for zeros; return length and sum.

    RequestError when it goes on after `longest` bytes.
    """
    machine = hashlib.new(algorithm)
    done = 0
    with open(target, "xb", buffering=0) as stream:
        while data := read(_CHUNK):
            machine.update(data)
            done += len(data)
            if done > longest:
                raise RequestError(f"the source has no end: it goes on after {longest} bytes", "name a file that is a disk image")
            if data == _ZERO[: len(data)]:
                stream.seek(len(data), os.SEEK_CUR)
            else:
                _write_all(stream.fileno(), data)
            watch(done, total)
        stream.truncate(done)
    return done, machine.hexdigest()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

"""What a guest has written to its serial console, and goes on writing: read from the file that QEMU appends to.

When that file has grown, the VM's keeper (keeper/bounded_logs.py) moves its content into FILE.old and empties it.
"""

from __future__ import annotations

import os

# bytes read last, which are looked for in FILE.old to find where to go on
_KNOWN = 256


class ConsoleHistory:
    """The console of a VM, whose directory has a link to the file; read on with `read_new`."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.realpath(f"{directory}/console.log")
        self._at = 0
        self._last = b""

    def read_all(self) -> bytes:
        """Return all that is kept, and go on from there."""
        old = _read(f"{self._path}.old", 0)
        new = _read(self._path, 0)
        self._at = len(new)
        self._last = (old + new)[-_KNOWN:]
        return old + new

    def read_new(self) -> bytes:
        """Return what has been added since the last call."""
        try:
            size = os.stat(self._path).st_size
        except OSError:
            return b""  # the VM has ended, and its files are removed
        if size == self._at:
            return b""
        if size > self._at:
            data = _read(self._path, self._at)
            self._at += len(data)
        else:
            data = self._read_on()
        self._last = (self._last + data)[-_KNOWN:]
        return data

    def _read_on(self) -> bytes:
        """Return what has been added since the last call, when the file was emptied meanwhile."""
        old, new = _read(f"{self._path}.old", 0), _read(self._path, 0)
        self._at = len(new)
        return old[_find_end(old, self._last) :] + new

    def has_ended(self) -> bool:
        """Tell whether the file is gone: then nothing will be added any more."""
        return not os.path.exists(self._path)


def _find_end(old: bytes, last: bytes) -> int:
    """Return where in FILE.old the part ends that was read already; the file's end when it is not there."""
    if (place := old.rfind(last)) >= 0:
        return place + len(last)
    return next((count for count in range(len(last) - 1, 0, -1) if old.startswith(last[-count:])), len(old))


def _read(path: str, at: int) -> bytes:
    try:
        with open(path, "rb") as stream:
            stream.seek(at)
            return stream.read()
    except OSError:
        return b""

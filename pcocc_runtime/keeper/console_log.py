"""The last of what a guest has written to its serial console: a guest can write for ever, and what is kept of
it is of limited size.

QEMU appends to a file. When that has half of the size, its content is put beside it, in place of what was
there, and it is emptied.
"""

from __future__ import annotations

import os
import time

_SOON, _LATE = 1.0, 4.0  # seconds between two looks: at a guest that writes, at one that does not
_PIECE = 1 << 16


class ConsoleLog:
    """The file of a VM's console, of which `size` bytes are kept."""

    def __init__(self, path: str, size: int) -> None:
        self.path, self._half = path, size // 2
        self._seen, self._wait, self._next = 0, _SOON, 0.0

    def patience(self) -> float:
        """Return how many seconds may pass until the next `tick`."""
        return max(0.0, self._next - time.monotonic())

    def tick(self) -> None:
        """Look at the file, if it is time to."""
        if time.monotonic() < self._next:
            return
        try:
            grown = self._look()
        except OSError:  # its directory is being released, or full: then it does not grow
            grown = False
        self._wait = _SOON if grown else min(2 * self._wait, _LATE)
        self._next = time.monotonic() + self._wait

    def _look(self) -> bool:
        size = os.stat(self.path).st_size
        grown, self._seen = size != self._seen, size
        if size > self._half:
            self._set_aside(size)
            self._seen = 0
        return grown

    def _set_aside(self, size: int) -> None:
        old = f"{self.path}.old"
        with open(self.path, "r+b", buffering=0) as log, open(f"{old}.new", "wb", buffering=0) as kept:
            log.seek(size - self._half)
            while data := log.read(_PIECE):  # what comes meanwhile, too
                kept.write(data)
                if kept.tell() > 2 * self._half:
                    break
            log.truncate(0)
        os.rename(f"{old}.new", old)

    def read_tail(self, most: int) -> bytes:
        """Return the last bytes, as many as there are up to `most`."""
        found = b""
        for path in (self.path, f"{self.path}.old"):
            try:
                with open(path, "rb") as log:
                    log.seek(max(0, os.fstat(log.fileno()).st_size - (most - len(found))))
                    found = log.read(most) + found
            except OSError:
                pass
            if len(found) >= most:
                break
        return found[-most:]

"""Bounds the logs that a guest can fill without end: only the last part of each is kept.

Other programs append to the files: QEMU what the guest says on its serial console, ssh and virtiofsd their
complaints. When a file has reached half of the size to keep, its content replaces that of a second file beside
it, and it is emptied.
"""

from __future__ import annotations

import os
import time

from pcocc_runtime.documents.record import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SOON, _LATE = 1.0, 4.0  # seconds between two looks: at a guest that writes, at one that does not
_PIECE = 1 << 16


class BoundedLog:
    """A file, of which `size` bytes are kept."""

    def __init__(self, path: str, size: int) -> None:
        self.path, self._half, self._seen = path, size // 2, 0

    def has_grown(self) -> bool:
        """Look at the file, and cut it if it is too long; tell whether its size has changed since the last look."""
        try:
            size = os.stat(self.path).st_size
            grown, self._seen = size != self._seen, size
            if size > self._half:
                self._set_aside(size)
                self._seen = 0
        except (
            OSError
        ):  # it is not there yet, its directory is being released, or full: then it does not grow
            return False
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


class LogWatch:
    """Looks at logs now and then, at all of them at once."""

    def __init__(self, logs: Sequence[BoundedLog]) -> None:
        self._logs = logs
        self._wait, self._next = _SOON, 0.0

    def patience(self) -> float:
        """Return how many seconds may pass until the next `tick`."""
        return max(0.0, self._next - time.monotonic())

    def tick(self) -> None:
        """Look at them, if it is time to."""
        if time.monotonic() < self._next:
            return
        grown = [log.has_grown() for log in self._logs]
        self._wait = _SOON if any(grown) else min(2 * self._wait, _LATE)
        self._next = time.monotonic() + self._wait

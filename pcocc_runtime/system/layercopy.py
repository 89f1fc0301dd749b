"""A large local file copied in one go: the kernel copies, one thread computes the sum, one has it written to disk meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from pcocc_runtime.progress import Watch

_PIECE = 16 << 20  # bytes copied between two looks at signals
_CHUNK = 1 << 20
_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY)  # copy_file_range(2)


def copy_layer(source: Path, target: Path, change_head: Callable[[bytes], bytes], head_size: int, watch: Watch) -> str:
    """Copy a file that nobody writes to a new one, on disk when this returns; return the sha256 of the copy.

    Its first `head_size` bytes are what `change_head` makes of them. Holes stay holes.
    """
    with open(source, "rb", buffering=0) as reader, open(target, "xb", buffering=0) as writer:
        total = os.fstat(reader.fileno()).st_size
        head = change_head(reader.read(head_size))
        writer.write(head)
        stop = threading.Event()
        sums: list[str] = []
        flushed: list[OSError] = []
        threads = [
            threading.Thread(target=lambda: _hash(reader.fileno(), head, stop, sums)),
            threading.Thread(target=lambda: _flush(writer.fileno(), stop, flushed)),
        ]
        for one in threads:
            one.start()
        try:
            writer.truncate(total)
            _copy(reader.fileno(), writer.fileno(), len(head), total, watch)
            _await(threads[0])
        finally:
            stop.set()
            for one in threads:
                one.join()
        os.fsync(writer.fileno())
        for error in flushed:
            raise error
    return sums[0]


def _await(thread: threading.Thread) -> None:
    while thread.is_alive():
        thread.join(0.1)  # signals are heard in between


def _hash(fd: int, head: bytes, stop: threading.Event, sums: list[str]) -> None:
    machine, at = hashlib.sha256(head), len(head)
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    while not stop.is_set() and (count := os.preadv(fd, [buffer], at)):
        machine.update(view[:count])
        at += count
    sums.append(machine.hexdigest())


def _flush(fd: int, stop: threading.Event, errors: list[OSError]) -> None:
    """Have the file written to disk as it grows: else all of it waits for the end."""
    while not stop.wait(0.1):
        try:
            os.fdatasync(fd)
        except OSError as error:
            errors.append(error)
            return


def _copy(source: int, target: int, at: int, total: int, watch: Watch) -> None:
    while at < total:
        begin = _seek(source, at, os.SEEK_DATA, total)
        end = _seek(source, begin, os.SEEK_HOLE, total)
        at = begin
        while at < end:
            at += _copy_piece(source, target, at, min(end - at, _PIECE))
            watch(at, total)


def _seek(fd: int, at: int, whence: int, total: int) -> int:
    """Return where the next data or hole begins, `total` when there is none."""
    try:
        return min(os.lseek(fd, at, whence), total)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return total
        if error.errno == errno.EINVAL:  # a file system that knows no holes
            return at if whence == os.SEEK_DATA else total
        raise


def _copy_piece(source: int, target: int, at: int, size: int) -> int:
    try:
        count = os.copy_file_range(source, target, size, at, at)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        count = 0
    if not count:
        data = os.pread(source, min(size, _CHUNK), at)
        if not data:
            raise OSError(errno.EIO, "the file has become shorter")
        count = os.pwrite(target, data, at)
    return count

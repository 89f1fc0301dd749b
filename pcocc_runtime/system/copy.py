"""Copies large files, keeps their holes, and computes checksums on the way.

If the source may change meanwhile, each byte is read once, so that the sum is of what was written (`copy_pieces`).
If it cannot, the kernel copies (`copy_extents`), and the sum may be computed beside that.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING

from pcocc_runtime.errors import RequestError
from pcocc_runtime.progress import Advance
from pcocc_runtime.system import regular

if TYPE_CHECKING:
    from hashlib import _Hash

# bytes: only qcow2 and raw disks can be larger, and a stream of zeros would never fill a file system
LONGEST_FILE = 64 << 40
_PIECE = 1 << 20  # bytes read at once
_EXTENT = 16 << 20  # bytes that the kernel copies at once
_FLUSH = 1 << 28  # bytes after which they are written to disk
_ZERO = bytes(_PIECE)
# copy_file_range(2)
_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY)


def begin_sum(algorithm: str = "sha256") -> _Hash:
    """Return an object that computes a sum."""
    import hashlib  # not at the top: 5 ms of the start of a VM that copies nothing

    return hashlib.new(algorithm)


def hash_file(path: PurePath, watch: Advance, algorithm: str = "sha256") -> str:
    """Return the hexadecimal sum of a regular file."""
    machine, done = begin_sum(algorithm), 0
    with regular.open_regular(path) as stream:
        total = os.fstat(stream.fileno()).st_size
        for piece in read_pieces(stream.fileno()):
            machine.update(piece)
            done += len(piece)
            watch(done, total)
    return machine.hexdigest()


def read_pieces(fd: int, at: int = 0) -> Iterator[bytes]:
    """Yield the content of an open file from a place to its end; holes are read, too."""
    while piece := os.pread(fd, _PIECE, at):
        yield piece
        at += len(piece)


def read_sparse(fd: int, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of an open file, fewer when it has fewer by then; its holes are not read."""
    at = 0
    while at < size:
        begin, end = find_data(fd, at, size)
        while at < begin:
            yield _ZERO[: begin - at]
            at += min(_PIECE, begin - at)
        while at < end:
            piece = os.pread(fd, min(_PIECE, end - at), at)
            if not piece:
                return
            yield piece
            at += len(piece)


def copy_stream(
    read: Callable[[int], bytes], target: PurePath, total: int, watch: Advance, algorithm: str = "sha256",
    longest: int = LONGEST_FILE
) -> tuple[int, str]:
    """Write what `read(size)` gives, until it gives nothing, to a new file; return its length and sum.

    RequestError when it goes on after `longest` bytes. `total` is what `watch` is told to expect.
    """

    def read_all() -> Iterator[bytes]:
        done = 0
        while piece := read(_PIECE):
            done += len(piece)
            if done > longest:
                reason = f"the source does not end: it goes on after {longest} bytes"
                raise RequestError(reason, "name a file that is a disk image")
            yield piece

    with open(target, "xb", buffering=0) as stream:
        return copy_pieces(read_all(), stream.fileno(), lambda done: watch(done, total), algorithm)


def copy_pieces(
    pieces: Iterable[bytes], target: int, watch: Callable[[int], None], algorithm: str = "sha256", *,
    flush: bool = False
) -> tuple[int, str]:
    """Write pieces one after the other to an empty file, with holes for those of zeros; return its length and sum.

    With `flush` they are written to disk on the way: otherwise all of that happens at the end, without any progress.
    """
    machine, done, flushed = begin_sum(algorithm), 0, 0
    for piece in pieces:
        machine.update(piece)
        if piece != _ZERO[: len(piece)]:
            _write_all(target, piece, done)
        done += len(piece)
        if flush and done - flushed >= _FLUSH:
            os.fdatasync(target)
            flushed = done
        watch(done)
    os.ftruncate(target, done)
    return done, machine.hexdigest()


def _write_all(fd: int, piece: bytes, at: int) -> None:
    view = memoryview(piece)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


def copy_extents(source: int, target: int, at: int, size: int) -> Iterator[int]:
    """Copy the data, without holes, from a place on between open files of one size; yield again and again how far."""
    while at < size:
        at, end = find_data(source, at, size)
        while at < end:
            at += _copy_some(source, target, at, min(end - at, _EXTENT))
            yield at


def _copy_some(source: int, target: int, at: int, size: int) -> int:
    try:
        count = os.copy_file_range(source, target, size, at, at)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        count = 0
    if not count:
        piece = os.pread(source, min(size, _PIECE), at)
        if not piece:
            raise OSError(errno.EIO, "the file has become shorter")
        _write_all(target, piece, at)
        count = len(piece)
    return count


def find_data(fd: int, at: int, size: int) -> tuple[int, int]:
    """Return where the next data of a file of `size` bytes begin and end, (size, size) when only a hole is left."""
    begin = _seek(fd, at, os.SEEK_DATA, size)
    return begin, _seek(fd, begin, os.SEEK_HOLE, size)


def _seek(fd: int, at: int, whence: int, size: int) -> int:
    try:
        return min(os.lseek(fd, at, whence), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        if error.errno == errno.EINVAL:  # a file system that knows no holes
            return at if whence == os.SEEK_DATA else size
        raise

"""Whether a qcow2 file has all the data that its tables point to (QEMU: docs/interop/qcow2.txt).

QEMU reads zeros beyond the end of a file: data that were cut off there would silently become zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from pcocc_runtime.images import qcow2

# cluster bits, size of the disk, encryption, number of L1 entries, offset of the L1 table
_SHAPE = struct.Struct(">20xIQIIQ")
_OFFSET = (1 << 56) - (1 << 9)
_COPIED, _COMPRESSED, _ZERO = 1 << 63, 1 << 62, 1
_EXTENDED = 1 << 4  # a feature: each L2 entry has a bitmap of its cluster's 32 subclusters
_SUBCLUSTERS = 32


def is_whole(head: bytes, size: int, read: Callable[[int, int], bytes]) -> bool:
    """Tell whether a file of `size` bytes has all that its tables point to; `read(at, length)` reads it from `head` on.

    QEMU must have accepted the image before, so that its tables have sensible lengths.
    """
    bits, disk, _crypt, entries, at = _SHAPE.unpack_from(head)
    cluster, width = 1 << bits, 16 if qcow2.read_features(head) & _EXTENDED else 8
    covered = cluster // width * cluster  # bytes of the disk that one L2 table maps
    entries = min(entries, -(-disk // covered))
    if at + 8 * entries > size:
        return False
    for number, (entry,) in enumerate(struct.iter_unpack(">Q", read(at, 8 * entries))):
        place = entry & _OFFSET
        if not place:
            continue
        if place + cluster > size:
            return False
        if any(end > size for end in _ends(read(place, cluster), bits, width, disk - number * covered, size)):
            return False
    return True


def _ends(table: bytes, bits: int, width: int, left: int, size: int) -> Iterator[int]:
    """Yield where in the file an L2 table's data end, without most of those certainly below `size` bytes.

    `left` is the number of bytes from the table's first entry to the end of the disk.
    """
    words, step = struct.unpack(f">{len(table) // 8}Q", table), width // 8
    # nearly all entries are at most this; there are 32 thousand for 2 GiB
    last = _COPIED + size - (1 << bits)
    shift = 62 - (bits - 8)  # where the number of further sectors of compressed data begins
    for index, entry in [
        (index, entry) for index, entry in enumerate(words[::step]) if entry and not _COPIED <= entry <= last
    ]:
        if entry & _COMPRESSED:
            first, more = entry & (1 << shift) - 1, (entry & _COMPRESSED - 1) >> shift
            yield (first & -512) + 512 * more + 1  # at least one byte of the last sector is used
            continue
        length = _used(words[index * step + 1], bits) if step == 2 else 0 if entry & _ZERO else 1 << bits
        length = min(length, left - (index << bits))
        if entry & _OFFSET and length > 0:
            yield (entry & _OFFSET) + length


def _used(bitmap: int, bits: int) -> int:
    """Return the bytes of a cluster up to the end of its last subcluster that has data."""
    return (bitmap & (1 << _SUBCLUSTERS) - 1).bit_length() * (1 << bits) // _SUBCLUSTERS

"""The tables of a qcow2 image, which lead to its data: is all of that in the file? (QEMU: docs/interop/qcow2.txt)

QEMU reads zeros beyond the end of a file: what was cut off there is data that are silently wrong, or no data any more.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from pcocc_runtime.images import qcow2

_SHAPE = struct.Struct(">20xIQIIQ")  # bits of a cluster, size of the disk, encryption, entries and place of the L1 table
_OFFSET = (1 << 56) - (1 << 9)
_COPIED, _COMPRESSED, _ZERO = 1 << 63, 1 << 62, 1
_EXTENDED = 1 << 4  # among the features: each L2 entry has a bitmap of its cluster's 32 parts
_SUBCLUSTERS = 32


def is_whole(head: bytes, size: int, read: Callable[[int, int], bytes]) -> bool:
    """Tell whether a file of `size` bytes has all that its tables lead to; `read(at, length)` reads it, `head` is its start.

    The image is one that QEMU opens, so that its tables have lengths that can be read.
    """
    bits, disk, _crypt, entries, at = _SHAPE.unpack_from(head)
    cluster, width = 1 << bits, 16 if qcow2.read_features(head) & _EXTENDED else 8
    covered = cluster // width * cluster  # bytes of the disk that one L2 table is about
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
    """Yield where in the file the data of an L2 table end, but for most of what is certainly within its `size` bytes.

    `left` bytes of the disk begin with the table's first entry.
    """
    words, step = struct.unpack(f">{len(table) // 8}Q", table), width // 8
    last = _COPIED + size - (1 << bits)  # nearly all entries are up to this one, and there are 32 thousand for 2 GiB
    shift = 62 - (bits - 8)  # of the number of sectors that compressed data reach beyond their first
    for index, entry in [(index, entry) for index, entry in enumerate(words[::step]) if entry and not _COPIED <= entry <= last]:
        if entry & _COMPRESSED:
            first, more = entry & (1 << shift) - 1, (entry & _COMPRESSED - 1) >> shift
            yield (first & -512) + 512 * more + 1  # there is at least a byte in the last one, which need not be filled up
            continue
        length = _used(words[index * step + 1], bits) if step == 2 else 0 if entry & _ZERO else 1 << bits
        length = min(length, left - (index << bits))
        if entry & _OFFSET and length > 0:
            yield (entry & _OFFSET) + length


def _used(bitmap: int, bits: int) -> int:
    """Return how much of a cluster there is up to the end of the last of its parts that has data."""
    return (bitmap & (1 << _SUBCLUSTERS) - 1).bit_length() * (1 << bits) // _SUBCLUSTERS

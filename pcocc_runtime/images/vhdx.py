"""Whether a VHDX image is only the difference to another one (Microsoft, VHDX Format Specification 1.0)."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator

Read = Callable[[int, int], bytes]  # (where, how many bytes)
_REGIONS = 192 << 10  # where the region table is, section 2.1
_METADATA = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
_FILE_PARAMETERS = uuid.UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B").bytes_le
_HAS_PARENT = 2
_MOST = 2047  # entries of a table, sections 2.2.3 and 2.6.1


def has_parent(read: Read) -> bool:
    """Tell whether the image has a parent; False also when its tables are damaged, which QEMU reports."""
    for place in _find(read, _REGIONS, b"regi", 8, 16, "<16sQ", _METADATA):
        for offset in _find(read, place, b"metadata", 10, 32, "<16sI", _FILE_PARAMETERS):
            flags = read(place + offset + 4, 4)
            return len(flags) == 4 and bool(struct.unpack("<I", flags)[0] & _HAS_PARENT)
    return False


def _find(
    read: Read, at: int, magic: bytes, count_at: int, begin: int, form: str, wanted: bytes
) -> Iterator[int]:
    """Yield the offset in each entry of a table that has the wanted name; an entry has 32 bytes."""
    head = read(at, begin)
    if len(head) < begin or not head.startswith(magic):
        return
    (count,) = struct.unpack_from("<H", head, count_at)
    table = read(at + begin, 32 * min(count, _MOST))
    for number in range(len(table) // 32):
        name, place = struct.unpack_from(form, table, 32 * number)
        if name == wanted:
            yield place

"""The backing file in a qcow2 header, given another name."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import qcow2

FORMAT = struct.pack(">II8s", 0xE2792ACA, 5, b"qcow2") + bytes(8)


def header(name: bytes, version: int = 3, extensions: bytes = FORMAT, size: int = 1 << 16) -> bytes:
    """Return the first cluster of a qcow2 image with a backing file."""
    begin = 104 if version == 3 else 72
    at = begin + len(extensions)
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, at, len(name), 16, 1 << 30, 0, 1, 0x30000, 0x10000, 1, 0, 0)
    head += struct.pack(">QQQII", 0, 0, 0, 4, 104) if version == 3 else b""
    return (head + extensions + name).ljust(size, b"\0")


@given(st.sampled_from([2, 3]), st.text("abc/.", min_size=1, max_size=1000), st.text("xyz/.", min_size=1, max_size=1000))
def test_a_backing_file_gets_another_name_and_nothing_else_changes(version: int, old: str, new: str) -> None:
    before = header(old.encode(), version)
    after = qcow2.name_backing(before, new, "i")
    assert qcow2.parse_header(after, "i") == qcow2.Header(version, 1 << 30, new)
    assert after == header(new.encode(), version) and len(after) == len(before)


@pytest.mark.parametrize(
    "head",
    [header(b"old", size=150), header(b"old", extensions=struct.pack(">II", 7, 1 << 31)),
     header(b"")[:8] + bytes(8) + header(b"")[16:]],
    ids=["no room", "an extension too long", "no backing file"],
)  # fmt: skip
def test_a_header_without_room_is_refused(head: bytes) -> None:
    with pytest.raises(RequestError, match="no room for the name"):
        qcow2.name_backing(head, "../../data/00/" + "0" * 64, "i")

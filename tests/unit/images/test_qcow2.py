"""The header of a qcow2 image, whole, forged or cut short."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import qcow2, qcow2_tables


def header(*, version: int = 3, backing: bytes = b"", at: int = 0, bits: int = 16, size: int = 1 << 30, crypt: int = 0,
           features: int = 0) -> bytes:  # fmt: skip
    at = at or (512 if backing else 0)
    head = struct.pack(
        ">4sIQIIQIIQQIIQQ", b"QFI\xfb", version, at, len(backing), bits, size, crypt, 1, 0x30000, 0x10000, 1, 0, 0, features
    )
    return head.ljust(512, b"\0") + backing


def test_a_plain_image_is_accepted() -> None:
    assert qcow2.parse_header(header(), "i") == qcow2.Header(3, 1 << 30, None)
    assert qcow2.parse_header(header(version=2), "i").version == 2


def test_a_local_backing_file_is_named() -> None:
    assert qcow2.parse_header(header(backing=b"base.qcow2"), "i").backing_file == "base.qcow2"
    assert qcow2.parse_header(header(backing=b"/a/b:c"), "i").backing_file == "/a/b:c"


@pytest.mark.parametrize("name", [b"json:{}", b"nbd://host/x", b"ssh://host/x", b"nbd:unix:/x", b"host_device:/dev/sda"])
def test_a_backing_file_elsewhere_is_refused(name: bytes) -> None:
    with pytest.raises(RequestError, match="not a plain path"):
        qcow2.parse_header(header(backing=name), "i")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "image i is not a qcow2 file: it is empty"),
        (b"hello", "image i is not a qcow2 file"),
        (b"\0" * 510 + b"\x55\xaa", "image i is not a qcow2 file: it looks like a raw disk"),
        (b"KDMV" + b"\0" * 600, "image i is not a qcow2 file: it looks like a VMDK image"),
        (b"\x1f\x8b\x08", "image i is not a qcow2 file: it looks like compressed with gzip"),
        (header()[:50], "image i is damaged: it is cut short"),
        (header(version=4), "image i is damaged: its version is 4, not 2 or 3"),
        (header(bits=40), "image i is damaged: its header makes no sense"),
        (header(size=0), "image i is damaged: its header makes no sense"),
        (header(crypt=2), "image i is encrypted"),
        (header(features=4), "image i keeps its data in another file"),
        (header(features=2), "image i is marked corrupt"),
        (header(backing=b"x", at=1 << 40), "image i is damaged: the name of its backing file is out of place"),
    ],
)
def test_what_qemu_must_not_open_is_refused(head: bytes, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        qcow2.parse_header(head, "i")
    assert caught.value.message == said


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, magic: bool) -> None:
    try:
        qcow2.parse_header((b"QFI\xfb\0\0\0\x03" if magic else b"") + data, "i")
    except RequestError as error:
        assert error.message.startswith("image i")


COPIED, COMPRESSED = 1 << 63, 1 << 62
SIZE = 0x60000  # header, refcounts, L1 and L2 tables and two clusters


@pytest.mark.parametrize(
    ("entry", "whole"),
    [
        (0, True),
        (COPIED | 0x50000, True),
        (0x50000, True),  # shared with a snapshot
        (COPIED | 0x60000, False),
        (0x60000, False),
        (COPIED | 0x60001, True),  # zeros, with a place that is not read
        (COMPRESSED | 127 << 54 | 0x50000, True),  # as long as a cluster
        (COMPRESSED | 127 << 54 | 0x50001, True),  # less than its last sector need be there
        (COMPRESSED | 128 << 54 | 0x50001, False),
        (COMPRESSED | 0x5FFFF, True),
        (COMPRESSED | 0x60000, False),
    ],
)
def test_what_an_entry_leads_to_is_looked_for(entry: int, whole: bool) -> None:
    words = {0x30000: COPIED | 0x40000, 0x40000 + 8 * 5: entry}
    data = bytearray(header().ljust(SIZE, b"\0"))
    for at, word in words.items():
        struct.pack_into(">Q", data, at, word)
    assert qcow2_tables.is_whole(bytes(data), SIZE, lambda at, length: bytes(data[at : at + length])) == whole


@pytest.mark.parametrize("size", [0x30007, 0x40000, 0x4FFFF])
def test_tables_that_are_cut_short_are_missed(size: int) -> None:
    data = bytearray(header().ljust(size, b"\0"))
    if size > 0x30008:
        struct.pack_into(">Q", data, 0x30000, COPIED | 0x40000)
    assert not qcow2_tables.is_whole(bytes(data), size, lambda at, length: bytes(data[at : at + length]))

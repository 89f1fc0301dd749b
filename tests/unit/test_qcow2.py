"""The header of a qcow2 image, whole, forged or cut short."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime import qcow2
from pcocc_runtime.errors import RequestError


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
        (b"\x1f\x8b\x08", "image i is not a qcow2 file: it looks like compressed by gzip"),
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

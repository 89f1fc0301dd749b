"""The header of a qcow2 image, read from its first bytes (QEMU: docs/interop/qcow2.txt)."""

from __future__ import annotations

import shlex
import struct
from dataclasses import dataclass

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import magics

HEADER_SIZE = 1 << 16  # bytes; the backing file's name, at most 1023 bytes, is in the first cluster
MAX_SIZE = 1 << 51  # bytes: the largest disk with clusters of 64 KiB, whose L1 table has 32 MiB
MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">Q")
_HEADER_LENGTH = struct.Struct(">I")
_EXTENSION = struct.Struct(">II")  # its type, 0 for the last one, and its length without padding
_DIRTY, _CORRUPT, _EXTERNAL_DATA = 1, 2, 4
_OTHERS = {
    b"KDMV": "a VMDK image", b"vhdxfile": "a VHDX image", b"conectix": "a VHD image", b"<<< ": "a VDI image",
}


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a qcow2 header that matter here; `size` is the virtual disk's, in bytes."""

    version: int
    size: int
    backing_file: str | None


def parse_header(head: bytes, path: str) -> Header:
    """Return the header in an image's first bytes; RequestError when QEMU must not open it as a boot disk."""
    if head[:4] != MAGIC:
        raise _foreign(head, path)
    if len(head) < _HEADER.size:
        raise _damaged(path, "it is cut short")
    _, version, name_at, name_length, bits, size, crypt, _l1_entries, l1_at, table_at, *_ = (
        _HEADER.unpack_from(head)
    )
    if version == 1:
        raise RequestError(f"image {path} is {magics.QCOW1.what}", magics.cure_for(magics.QCOW1, path))
    if version not in (2, 3):
        raise _damaged(path, f"its version is {version}, not 2 or 3")
    if not 9 <= bits <= 21 or not size or not l1_at or not table_at:
        raise _damaged(path, "its header makes no sense")
    if crypt:
        raise RequestError(f"image {path} is encrypted", "make a decrypted copy with qemu-img convert")
    if version == 3:
        _refuse_features(head, path)
    return Header(version, size, _backing_file(head, name_at, name_length, path))


def read_features(head: bytes) -> int:
    """Return, as bits, the features that a reader of the image must know."""
    version = _HEADER.unpack_from(head)[1]
    return int(_FEATURES.unpack_from(head, _HEADER.size)[0]) if version == 3 else 0


def was_left_open(head: bytes) -> bool:
    """Tell whether the image's last writer did not close it: cluster counts may be wrong then, data are not."""
    return bool(read_features(head) & _DIRTY)


def _refuse_features(head: bytes, path: str) -> None:
    if len(head) < _HEADER.size + _FEATURES.size:
        raise _damaged(path, "it is cut short")
    features = read_features(head)
    if features & _EXTERNAL_DATA:
        raise RequestError(f"image {path} keeps its data in another file",
                           f"make it one file: qemu-img convert -O qcow2 {path} NEW.qcow2")
    if features & _CORRUPT:
        raise RequestError(f"image {path} is marked corrupt", f"repair it: qemu-img check -r all {path}")


def _backing_file(head: bytes, at: int, length: int, path: str) -> str | None:
    if not at:
        return None
    if length > 1023 or at + length > len(head):
        raise _damaged(path, "the name of its backing file is out of place")
    name = head[at : at + length].decode(errors="replace")
    if ":" in name.partition("/")[0]:
        raise RequestError(
            f"image {path} has the backing file {name[:80]!r}, which is not a plain path",
            f"make it one file: qemu-img convert -O qcow2 {path} NEW.qcow2",
        )
    return name


def _foreign(head: bytes, path: str) -> RequestError:
    """Return the error for a file that is not a qcow2 image, with the way to make one from it if it is a disk."""
    if not head:
        return RequestError(f"image {path} is not a qcow2 file: it is empty", "name another file")
    known = magics.find_kind(head)
    if known:
        return RequestError(
            f"image {path} is not a qcow2 file: it looks like {known.what}", magics.cure_for(known, path)
        )
    kind = next((text for magic, text in _OTHERS.items() if head.startswith(magic)), None)
    kind = kind or ("a raw disk" if head[510:512] == b"\x55\xaa" else None)
    looks = f": it looks like {kind}" if kind else ""
    return RequestError(
        f"image {path} is not a qcow2 file{looks}", f"import it: pcocc image import {shlex.quote(path)} NAME"
    )


def _damaged(path: str, reason: str) -> RequestError:
    return RequestError(f"image {path} is damaged: {reason}", f"see what QEMU says: qemu-img check {path}")


def name_backing(head: bytes, name: str, path: str) -> bytes:
    """Return the first cluster of an image with its backing file renamed; the name stands where QEMU puts it."""
    at, length = _HEADER.unpack_from(head)[2:4]
    encoded, begin = name.encode(), _end_of_extensions(head)
    if not at or begin is None or begin + len(encoded) > len(head) or len(encoded) > 1023:
        raise _damaged(path, "its header has no room for the name of its backing file")
    cluster = bytearray(head)
    cluster[at : at + length] = bytes(length)
    cluster[begin : begin + len(encoded)] = encoded
    struct.pack_into(">QI", cluster, 8, begin, len(encoded))
    return bytes(cluster)


def _end_of_extensions(head: bytes) -> int | None:
    """Return where the header extensions end, None when they have no end."""
    at = int(_HEADER_LENGTH.unpack_from(head, 100)[0]) if _HEADER.unpack_from(head)[1] == 3 else _HEADER.size
    while at + _EXTENSION.size <= len(head):
        kind, length = _EXTENSION.unpack_from(head, at)
        at += _EXTENSION.size + (int(length) + 7) // 8 * 8
        if kind == 0:
            return at
    return None

"""What kind of disk image a file is, told by its own bytes, and whether it is complete and needs no other file.

Layouts: QEMU docs/interop/qcow2.txt; VMware Virtual Disk Format 5.0; Microsoft VHD 1.0 and VHDX 1.0; QEMU block/vdi.c.
"""

from __future__ import annotations

import re
import shlex
import struct

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import magics, qcow2, vhdx

HEAD_SIZE = qcow2.HEADER_SIZE
TAIL_SIZE = 512
FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc")
SUFFIXES = {
    "raw": "raw",
    "img": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vhdx": "vhdx",
    "vhd": "vpc",
    "vpc": "vpc",
}
DAMAGED_HINT = "compare its checksum with the one its maker publishes, and download it again"
_VDI_MAGIC = b"\x7f\x10\xda\xbe"
_VDI_DIFFERENCE = 4
_VHD_DYNAMIC, _VHD_FIXED, _VHD_DIFFERENCING = 3, 2, 4


_MAGICS = ((0, qcow2.MAGIC, "qcow2"), (0, b"KDMV", "vmdk"), (0, b"vhdxfile", "vhdx"), (64, _VDI_MAGIC, "vdi"))


def begins_like_disk(head: bytes) -> bool:
    """Tell whether a file is a disk image by its first bytes; of a raw disk, or of a VHD, they say nothing."""
    return any(head.startswith(magic, at) for at, magic, _form in _MAGICS)


def find_format(head: bytes, tail: bytes, path: str | None) -> str:
    """Return the format of an image from its first and last bytes; RequestError when pcocc surely cannot read it.

    `path` is where the user has the file, if anywhere.
    """
    form = next((form for at, magic, form in _MAGICS if head.startswith(magic, at)), None)
    if form:
        return form
    kind = magics.find_kind(head, tail)
    if kind:
        raw = (
            ""
            if kind.is_packed
            else (
                "; add '--format raw' if it is a raw disk that only begins like"
                f" {kind.what.partition(',')[0]}"
            )
        )
        raise RequestError(f"the file is {kind.what}", f"{magics.cure_for(kind, path)}{raw}")
    # VMware's name for it; its content is a part of the disk's
    if path and re.search(r"-f[0-9]{3}\.vmdk\Z", path):
        raise RequestError(
            "the file is one extent of a VMDK image in several files, by its name", _extent_cure(path)
        )
    # a dynamic VHD has its footer at both ends
    return "vpc" if b"conectix" in (head[:8], tail[-512:-504]) else "raw"


def _extent_cure(path: str) -> str:
    whole = re.sub(r"(-[sf][0-9]{3})?(\.vmdk)?\Z", ".vmdk", path, count=1)
    return (
        "convert its descriptor, the small file beside it: qemu-img convert -f vmdk -O qcow2"
        f" {shlex.quote(whole)} NEW.qcow2"
    )


def ensure_sound(form: str, head: bytes, tail: bytes, size: int, path: str) -> None:
    """Raise RequestError unless a file of `size` bytes is a complete `form` image that needs no other file."""
    if not size:
        raise _broken(path, form, "it is empty")
    if form == "qcow2":
        header = qcow2.parse_header(head, path)
        if header.backing_file is not None:
            raise RequestError(
                f"image {path} has a backing file, {header.backing_file[:80]!r}: it is only a part of a disk",
                f"make it one file: qemu-img convert -O qcow2 {path} NEW.qcow2",
            )
    elif form == "raw":
        if size % 512:
            reason = (
                f"its {size} bytes are not a whole number of sectors: it was cut short, or it is not a disk"
            )
            raise _broken(path, form, reason)
    elif form == "vmdk":
        _check_vmdk(head, path)
    elif form == "vdi":
        _check_vdi(head, path)
    elif form == "vpc":
        _check_vpc(tail, size, path)
    elif head[:8] != b"vhdxfile":
        raise _broken(path, form, "it does not begin like one")
    elif size % (1 << 20):
        # VHDX 1.0, 2.2: all objects are whole MiB; QEMU reads zeros where the last one is missing
        raise _broken(path, form, "it is cut short")


def _check_vmdk(head: bytes, path: str) -> None:
    if len(head) < 512 or head[:4] != b"KDMV":
        raise _broken(path, "vmdk", "it does not begin like one")
    _version, _flags, capacity, _grain, at, length = struct.unpack_from("<IIQQQQ", head, 4)
    if not capacity:
        raise RequestError(f"image {path} is a VMDK image whose data are in other files", _vmdk_cure(path))
    text = head[at * 512 : (at + min(length, 20)) * 512]
    # a disk in one file has its descriptor inside (VMware, Hosted Sparse Extents)
    if not length or (text and not text.strip(b"\0")):
        raise RequestError(f"image {path} is one extent of a VMDK image in several files", _extent_cure(path))
    if not text or at * 512 >= len(head):
        raise _broken(path, "vmdk", "its descriptor is out of place")
    if b"parentfilenamehint" in text.lower():
        raise RequestError(
            f"image {path} has a parent, another VMDK image: it is only a part of a disk", _vmdk_cure(path)
        )


def _vmdk_cure(path: str) -> str:
    return (
        f"make it one file, where the others are: qemu-img convert -f vmdk -O qcow2 {shlex.quote(path)}"
        " NEW.qcow2"
    )


def _check_vdi(head: bytes, path: str) -> None:
    if head[64:68] != _VDI_MAGIC:
        raise _broken(path, "vdi", "it does not begin like one")
    (kind,) = struct.unpack_from("<I", head.ljust(456, b"\0"), 76)
    link, parent = head[424:440], head[440:456]
    if kind == _VDI_DIFFERENCE or any(link) or any(parent):
        clone = (
            f"make a disk of both, where the machine is: VBoxManage clonemedium disk {shlex.quote(path)}"
            " NEW.vdi"
        )
        raise RequestError(
            f"image {path} has a parent, another VDI image: it is only a part of a disk", clone
        )


def ensure_no_parent(read: vhdx.Read, path: str) -> None:
    """Raise RequestError when a VHDX image is the difference to another one; `read(at, length)` reads it."""
    if vhdx.has_parent(read):
        raise RequestError(
            f"image {path} has a parent, another VHDX image: it is only a part of a disk",
            _merge_cure(path, "vhdx"),
        )


def _merge_cure(path: str, suffix: str) -> str:
    return (
        f"make a disk of both, with Hyper-V where they are: Convert-VHD -Path {shlex.quote(path)}"
        f" -DestinationPath NEW.{suffix}"
    )


def _check_vpc(tail: bytes, size: int, path: str) -> None:
    if tail[-512:-504] != b"conectix":
        raise _broken(path, "vpc", "its last 512 bytes are not a footer: it was cut short")
    (current,) = struct.unpack_from(">Q", tail, 48)
    (kind,) = struct.unpack_from(">I", tail, 60)
    if kind == _VHD_DIFFERENCING:
        raise RequestError(
            f"image {path} has a parent, another VHD image: it is only a part of a disk",
            _merge_cure(path, "vhd"),
        )
    if kind not in (_VHD_FIXED, _VHD_DYNAMIC):
        raise _broken(path, "vpc", f"it is of an unknown type, {kind}")
    if kind == _VHD_FIXED and size < current + 512:
        raise _broken(path, "vpc", "it is cut short")


def _broken(path: str, form: str, reason: str) -> RequestError:
    return RequestError(f"{path} is not a sound {form} image: {reason}", DAMAGED_HINT)

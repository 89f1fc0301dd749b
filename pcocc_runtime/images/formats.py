"""What kind of disk image a file is, told by its own bytes, and whether it is complete and needs no other file.

Layouts: QEMU docs/interop/qcow2.txt; VMware Virtual Disk Format 5.0; Microsoft VHD 1.0 and VHDX 1.0; QEMU block/vdi.c.
"""

from __future__ import annotations

import struct

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import qcow2

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
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"PK\3\4": "zip",
    b"7z\xbc\xaf": "7-zip",
    b"\x04\x22\x4d\x18": "lz4",
}
_UNKNOWN = {
    b"QED\0": "a QED image",
    b"LUKS": "a LUKS container",
    b"COWD": "a VMDK image of version 3",
    b"# Disk DescriptorFile": "the descriptor of a VMDK image whose data are in other files",
    b"\x7fELF": "a program",
}
DAMAGED_HINT = "compare its checksum with the one its maker publishes, and download it again"
_VDI_MAGIC = b"\x7f\x10\xda\xbe"
_VHD_DYNAMIC, _VHD_FIXED, _VHD_DIFFERENCING = 3, 2, 4


def find_format(head: bytes, tail: bytes) -> str:
    """Return the format of an image from its first and last bytes; RequestError when it is certainly none that we read."""
    if head[:4] == b"QFI\xfb":
        return "qcow2"
    if head[:4] == b"KDMV":
        return "vmdk"
    if head[:8] == b"vhdxfile":
        return "vhdx"
    if head[64:68] == _VDI_MAGIC:
        return "vdi"
    for magic, packer in _PACKED.items():
        if head.startswith(magic):
            raise RequestError(
                f"the file is compressed with {packer}", "unpack it first, or add '--format raw' if it is a raw disk"
            )
    for magic, what in _UNKNOWN.items():
        if head.startswith(magic):
            raise RequestError(f"the file is {what}", "convert it with qemu-img, or add '--format raw' if it is a raw disk")
    if head[257:262] == b"ustar":
        hint = "unpack it and import the disk inside, or add '--format raw' if it is a raw disk"
        raise RequestError("the file is a tar archive, as an OVA is", hint)
    return "vpc" if b"conectix" in (head[:8], tail[-512:-504]) else "raw"  # a dynamic VHD has its footer at both ends


def ensure_sound(form: str, head: bytes, tail: bytes, size: int, path: str) -> None:
    """Raise RequestError unless a file of `size` bytes is a complete image of format `form` that needs no other file."""
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
            reason = f"its {size} bytes are not a whole number of sectors: it was cut short, or it is not a disk"
            raise _broken(path, form, reason)
    elif form == "vmdk":
        _check_vmdk(head, path)
    elif form == "vdi":
        _check_vdi(head, path)
    elif form == "vpc":
        _check_vpc(tail, size, path)
    elif head[:8] != b"vhdxfile":
        raise _broken(path, form, "it does not begin like one")
    elif size % (1 << 20):  # VHDX 1.0, 2.2: all objects are whole MiB; QEMU reads zeros where the last one is missing
        raise _broken(path, form, "it is cut short")


def _check_vmdk(head: bytes, path: str) -> None:
    if len(head) < 512 or head[:4] != b"KDMV":
        raise _broken(path, "vmdk", "it does not begin like one")
    _version, _flags, capacity, _grain, at, length = struct.unpack_from("<IIQQQQ", head, 4)
    if not capacity:
        raise RequestError(f"image {path} is a VMDK image whose data are in other files", _ONE_FILE)
    if not length:
        return
    text = head[at * 512 : (at + min(length, 20)) * 512]
    if not text or at * 512 >= len(head):
        raise _broken(path, "vmdk", "its descriptor is out of place")
    if b"parentfilenamehint" in text.lower():
        raise RequestError(f"image {path} has a parent, another VMDK image: it is only a part of a disk", _ONE_FILE)


_ONE_FILE = "export it as one file, for example with ovftool or qemu-img convert"


def _check_vdi(head: bytes, path: str) -> None:
    if head[64:68] != _VDI_MAGIC:
        raise _broken(path, "vdi", "it does not begin like one")


def _check_vpc(tail: bytes, size: int, path: str) -> None:
    if tail[-512:-504] != b"conectix":
        raise _broken(path, "vpc", "its last 512 bytes are not a footer: it was cut short")
    (current,) = struct.unpack_from(">Q", tail, 48)
    (kind,) = struct.unpack_from(">I", tail, 60)
    if kind == _VHD_DIFFERENCING:
        raise RequestError(f"image {path} has a parent, another VHD image: it is only a part of a disk", _ONE_FILE)
    if kind not in (_VHD_FIXED, _VHD_DYNAMIC):
        raise _broken(path, "vpc", f"it is of an unknown type, {kind}")
    if kind == _VHD_FIXED and size < current + 512:
        raise _broken(path, "vpc", "it is cut short")


def _broken(path: str, form: str, reason: str) -> RequestError:
    return RequestError(f"{path} is not a sound {form} image: {reason}", DAMAGED_HINT)

"""What files are called whose first bytes say that they are no disk that pcocc reads, and how to get a disk from each.

Sources: file(1)'s magic; QEMU's block/*.c; Parallels' disk format (docs/interop/parallels.txt); Sylabs' SIF;
kernel documentation.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple


class Kind(NamedTuple):
    """What a file is, and what helps; `{}` in the cure is the file's path."""

    what: str
    cure: str
    is_packed: bool = False


def _packed(packer: str, command: str) -> Kind:
    return Kind(f"compressed with {packer}", f"unpack it first: {command}", True)


def _converted(what: str, driver: str) -> Kind:
    return Kind(what, f"convert it: qemu-img convert -f {driver} -O qcow2 {{}} NEW.qcow2")


_ROOT = (
    "no VM boots from it; export a directory with its content (--pcocc-mount), or build a disk with a boot"
    " loader from it"
)
_CONTAINER = Kind(
    "a SIF image, a container of Apptainer or Singularity",
    "no VM boots from it: it has no kernel. Run it in a VM that has Apptainer: --pcocc-mount=TAG=DIRECTORY"
    " shows it the file",
)
_TAR = Kind("a tar archive, as an OVA is", "unpack it and import the disk inside: tar -xf {}")
_PAGE = Kind(
    "a text, such as the page of a web server that says what is wrong",
    "look into it: head {}; and download the image again",
)
_SCRIPT = Kind("a script", "name the disk image")
_PARALLELS = _converted("a Parallels disk (.hds)", "parallels")
VMDK_DESCRIPTOR = _converted("the descriptor of a VMDK image whose data are in other files", "vmdk")
QCOW1 = _converted("a qcow image of version 1", "qcow")
ISO = "an ISO 9660 image, as of a CD"

_KINDS: tuple[tuple[int, bytes, Kind], ...] = (  # where the magic is, and what it says
    (0, b"\x1f\x8b", _packed("gzip", "gzip -dc {} >DISK")),
    (0, b"\xfd7zXZ\0", _packed("xz", "xz -dc {} >DISK")),
    (0, b"\x28\xb5\x2f\xfd", _packed("zstd", "zstd -dc {} >DISK")),
    (0, b"BZh", _packed("bzip2", "bzip2 -dc {} >DISK")), (0, b"PK\3\4", _packed("zip", "unzip {}")),
    (0, b"7z\xbc\xaf\x27\x1c", _packed("7-zip", "7z x {}")),
    (0, b"\x04\x22\x4d\x18", _packed("lz4", "lz4 -dc {} >DISK")),
    (0, b"LZIP", _packed("lzip", "lzip -dc {} >DISK")),
    (0, b"\x89LZO\0", _packed("lzop", "lzop -dc {} >DISK")),
    (0, b"\x1f\x9d", _packed("compress", "zcat {} >DISK")), (0, b"Rar!\x1a\7", _packed("rar", "unrar x {}")),
    (0, b"QED\0", _converted("a QED image", "qed")),
    (0, b"COWD", _converted("a VMDK image of version 3", "vmdk")),
    (0, b"# Disk DescriptorFile", VMDK_DESCRIPTOR),
    (0, b"WithoutFreeSpace", _PARALLELS), (0, b"WithouFreSpacExt", _PARALLELS),
    (0, b"Bochs Virtual HD Image", _converted("a Bochs disk", "bochs")),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", _converted("a cloop image", "cloop")),
    (
        0, b"LUKS\xba\xbe",
        Kind(
            "a LUKS container",
            "make a decrypted copy of it: cryptsetup open {} NAME, then dd from /dev/mapper/NAME",
        ),
    ),
    (
        0, b"VMA\0",
        Kind(
            "a backup of Proxmox VE (VMA)", "extract its disks where Proxmox VE is: vma extract {} DIRECTORY"
        ),
    ),
    (0, b"\x3a\xff\x26\xed", Kind("a sparse image of Android", "unpack it first: simg2img {} DISK")),
    (0, b"EVF\t\r\n\xff\0", Kind("an EnCase image (EWF)", "unpack it first: ewfexport -t DISK -f raw {}")),
    (
        0, b"MSWIM\0\0\0",
        Kind("an image of Windows' installer (WIM)", "install it to a disk, and import that"),
    ),
    (0, b"hsqs", Kind("a squashfs file system, as container and live images are", _ROOT)),
    (0, b"sqsh", Kind("a squashfs file system", _ROOT)), (32, b"SIF_MAGIC", _CONTAINER),
    (1024, b"\xe2\xe1\xf5\xe0", Kind("an EROFS file system", _ROOT)),
    (0, b"\x45\x3d\xcd\x28", Kind("a cramfs file system", _ROOT)), (257, b"ustar", _TAR),
    (
        0, b"070701",
        Kind(
            "a cpio archive, as an initrd is",
            "with a kernel it is 'kernel: {{path: ..., initrd: {}}}' in a template",
        ),
    ),
    (0, b"!<arch>\n", Kind("an archive, as a Debian package is", "name the disk image")),
    (0, b"\xed\xab\xee\xdb", Kind("an RPM package", "name the disk image")),
    (0, b"\x7fELF", Kind("a program", "name the disk image")),
    (514, b"HdrS", Kind("a Linux kernel", "use it as 'kernel: {{path: {}}}' in a template")),
    (
        0, b"version https://git-lfs",
        Kind("a pointer of Git LFS, not the file itself", "fetch it in the repository: git lfs pull"),
    ),
    (0, b"#!", _SCRIPT),
    (0, b"%PDF-", Kind("a PDF document", "name the disk image")),
)
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_DMG = _converted("a disk image of macOS (DMG)", "dmg")


def find_kind(head: bytes, tail: bytes = b"") -> Kind | None:
    """Return what a file certainly is by its first and last bytes, None when it may be a disk."""
    for at, magic, kind in _KINDS:
        if head.startswith(magic, at):
            return kind
    # of another length it is no disk in any case, and is told so
    if len(head) % 512 == 0 and head[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        return _PAGE
    return _DMG if tail[-512:-508] == b"koly" else None


def is_iso(head: bytes) -> bool:
    """Tell whether a file has the first volume descriptor of ISO 9660; some of these are disks, too."""
    return head[32769:32774] == b"CD001"


def cure_for(kind: Kind, path: str | None) -> str:
    """Return what to do with a file; None stands for one that has no path here."""
    return kind.cure.format(shlex.quote(path) if path else "FILE")

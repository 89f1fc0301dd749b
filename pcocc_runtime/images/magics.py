"""Kinds of files that pcocc cannot read as disks, told by their first bytes, and how to get a disk from each.

Sources: file(1)'s magic; QEMU's block/*.c; Parallels' disk format (docs/interop/parallels.txt); Sylabs' SIF;
kernel documentation.
"""

from __future__ import annotations

import re
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


def _tree(what: str) -> Kind:
    return Kind(
        what,
        "no VM boots from it; export a directory with its content (--pcocc-mount), or build a disk with a boot"
        " loader from it",
    )


def _of_macos(form: str) -> Kind:
    cure = "convert it on a Mac: hdiutil convert {} -format UDTO -o DISK"
    return Kind(f"a sparse disk image of macOS ({form})", cure)


def _other(what: str) -> Kind:
    return Kind(what, "name the disk image")


_ZIP, _ZSTD = _packed("zip", "unzip {}"), _packed("zstd", "zstd -dc {} >DISK")
_LZ4 = _packed("lz4", "lz4 -dc {} >DISK")
_CONTAINER = Kind(
    "a SIF image, a container of Apptainer or Singularity",
    "no VM boots from it: it has no kernel. Run it in a VM that has Apptainer: --pcocc-mount=TAG=DIRECTORY"
    " shows it the file",
)
_TAR = Kind("a tar archive, as an OVA is", "unpack it and import the disk inside: tar -xf {}")
_PAGE = Kind(
    "a text, such as a web server's page about an error",
    "look into it: head {}; and download the image again",
)
_LUKS = Kind(
    "a LUKS container",
    "make a decrypted copy of it: cryptsetup open {} NAME, then dd from /dev/mapper/NAME",
)
_RESTORE, _STATE = "restore it to a disk, and import that", "import the disk of that machine: a state has none"
_BOOTED = Kind("a program that firmware starts", "it is not a disk: build one with a boot loader from it")
_TORRENT = Kind("a torrent, not the file itself", "fetch what it names with a BitTorrent client")
_ENCASE = Kind("an EnCase image (EWF)", "unpack it first: ewfexport -t DISK -f raw {}")
_SCRIPT, _PICTURE = _other("a script"), _other("a picture")
_KERNEL = Kind("a Linux kernel", "use it as 'kernel: {{path: {}}}' in a template")
_CPIO = Kind("a cpio archive, as an initrd is", "with a kernel it is 'kernel: {{path: ..., initrd: {}}}' in a template")
_TEXT = Kind("a text", "look into it: head {}; a disk image is not text")
_PARALLELS = _converted("a Parallels disk (.hds)", "parallels")
VMDK_DESCRIPTOR = _converted("the descriptor of a VMDK image whose data are in other files", "vmdk")
VMDK_EXTENT = Kind(
    "a part of a VMDK image (seSparse), whose descriptor is another file",
    "convert its descriptor, the small file beside {}: qemu-img convert -f vmdk -O qcow2 NAME.vmdk NEW.qcow2",
)
QCOW1 = _converted("a qcow image of version 1", "qcow")
ISO = "an ISO 9660 image, as of a CD"

_KINDS: tuple[tuple[int, bytes, Kind], ...] = (  # where the magic is, and what it says
    (0, b"\x1f\x8b", _packed("gzip", "gzip -dc {} >DISK")),
    (0, b"\xfd7zXZ\0", _packed("xz", "xz -dc {} >DISK")),
    (0, b"\x28\xb5\x2f\xfd", _ZSTD),
    (0, b"BZh", _packed("bzip2", "bzip2 -dc {} >DISK")), (0, b"PK\3\4", _ZIP),
    (0, b"7z\xbc\xaf\x27\x1c", _packed("7-zip", "7z x {}")),
    (0, b"\x04\x22\x4d\x18", _LZ4),
    (0, b"LZIP", _packed("lzip", "lzip -dc {} >DISK")),
    (0, b"\x89LZO\0", _packed("lzop", "lzop -dc {} >DISK")),
    (0, b"\x1f\x9d", _packed("compress", "zcat {} >DISK")), (0, b"Rar!\x1a\7", _packed("rar", "unrar x {}")),
    (0, b"QED\0", _converted("a QED image", "qed")),
    (0, b"\x5d\0\0\x80\0", _packed("lzma", "lzma -dc {} >DISK")),
    # a frame to be skipped, which pzstd writes first
    *((0, bytes([number]) + b"\x2a\x4d\x18", _ZSTD) for number in range(0x50, 0x60)),
    (0, b"\x02\x21\x4c\x18", _LZ4),
    (0, b"LRZI", _packed("lrzip", "lrzip -d -o DISK {}")), (0, b"MSCF\0\0\0\0", _packed("cabinet", "cabextract {}")),
    (0, b"\xff\6\0\0sNaPpY", _packed("snappy", "snzip -dc {} >DISK")),
    (0, b"PK\5\6", _ZIP), (0, b"PK\7\x08", _ZIP),
    (0, b"xar!", _packed("xar", "xar -xf {}")),
    (0, b"vhdsfile",
     Kind("a set of VHDX images (.vhds)", "export the machine with Hyper-V, and import the .vhdx it makes")),
    (0, b"COWD", _converted("a VMDK image of version 3", "vmdk")),
    (0, b"# Disk DescriptorFile", VMDK_DESCRIPTOR),
    (0, b"WithoutFreeSpace", _PARALLELS), (0, b"WithouFreSpacExt", _PARALLELS),
    (0, b"Bochs Virtual HD Image", _converted("a Bochs disk", "bochs")),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", _converted("a cloop image", "cloop")),
    (0, b"LUKS\xba\xbe", _LUKS),
    (0, b"SKUL\xba\xbe", _LUKS),
    (3, b"-FVE-FS-", Kind("a disk of BitLocker", "make a decrypted copy of it: cryptsetup bitlkOpen {} NAME, then dd")),
    (
        0, b"VMA\0",
        Kind(
            "a backup of Proxmox VE (VMA)", "extract its disks where Proxmox VE is: vma extract {} DIRECTORY"
        ),
    ),
    (0, b"\x3a\xff\x26\xed", Kind("a sparse image of Android", "unpack it first: simg2img {} DISK")),
    *((0, magic, _ENCASE) for magic in (b"EVF\t\r\n\xff\0", b"EVF2\r\n\x81\0")),
    (0, b"sprs", _of_macos("sparseimage")), (0, b"shdw\0\0\0\1", _of_macos("ASIF")),
    (0, b"\xbe\xba\xfe\xca\0\0\0\0", VMDK_EXTENT),
    (
        0, b"MSWIM\0\0\0",
        Kind("an image of Windows' installer (WIM)", "install it to a disk, and import that"),
    ),
    (0, b"hsqs", _tree("a squashfs file system, as container and live images are")),
    (0, b"sqsh", _tree("a squashfs file system")), (32, b"SIF_MAGIC", _CONTAINER),
    (1024, b"\xe2\xe1\xf5\xe0", _tree("an EROFS file system")),
    (0, b"\x45\x3d\xcd\x28", _tree("a cramfs file system")), (257, b"ustar", _TAR),
    *((0, magic, _CPIO) for magic in (b"070701", b"070702", b"070707", b"\xc7\x71", b"\x71\xc7")),
    (0, b"-rom1fs-", _tree("a romfs file system")), (0, b"UBI#\1", _tree("an image of flash memory (UBI)")),
    (0, b"\x85\x19\3\x20", _tree("an image of flash memory (JFFS2)")),
    (0, b"partclone-image", Kind("a backup of partclone, as Clonezilla makes", _RESTORE)),
    (0, b"FsArCh_", Kind("a backup of fsarchiver", _RESTORE)),
    (0, b"btrfs-stream\0", Kind("a stream of btrfs send", _RESTORE)),
    (8, b"\xac\xcb\xba\xf5\2\0\0\0", Kind("a stream of zfs send", _RESTORE)),
    (0, b"AFF10\r\n", Kind("a forensic image (AFF)", "unpack it first: affconvert -r {}")),
    (0, b"QEVM\0\0\0\3", Kind("the state of a machine of QEMU", _STATE)),
    (0, b"LibvirtQemudSave", Kind("the state of a machine of libvirt", _STATE)),
    *((0, bytes([number]) + b"\xbe\xd2\xbe", Kind("the state of a machine of VMware", _STATE))
      for number in range(0xD0, 0xD4)),
    (0, b"KDUMP   ", _other("what a kernel's memory was when it failed")),
    (0, b"xFSdump0", Kind("a backup of xfsdump", _RESTORE)), (24, b"\x6c\xea\0\0", Kind("a backup of dump", _RESTORE)),
    *((0, magic, _BOOTED) for magic in (b"ANDROID!", b"\x27\x05\x19\x56", b"\xd0\x0d\xfe\xed")),
    (56, b"ARM\x64", _KERNEL),
    (0, b"SQLite format 3\0", _other("a database")),
    (0, b"\x89PNG\r\n\x1a\n", _PICTURE),
    (0, b"\xff\xd8\xff", _PICTURE), (0, b"GIF8", _PICTURE), (0, b"RIFF", _other("a sound, a film or a picture")),
    (0, b"d8:announce", _TORRENT), (0, b"d13:announce-list", _TORRENT),
    (0, b"!<arch>\n", _other("an archive, as a Debian package is")),
    (0, b"\xed\xab\xee\xdb", _other("an RPM package")),
    (0, b"\x7fELF", _other("a program")),
    (514, b"HdrS", _KERNEL),
    (
        0, b"version https://git-lfs",
        Kind("a pointer of Git LFS, not the file itself", "fetch it in the repository: git lfs pull"),
    ),
    (0, b"#!", _SCRIPT),
    (0, b"%PDF-", _other("a PDF document")),
)
_WHOLE = 1 << 16  # bytes that callers read: a shorter head is the whole file
_DESCRIPTOR = re.compile(rb"\s*(#[^\n]*\n\s*)*version\s*=\s*[123]\s")  # block/vmdk.c, vmdk_probe
_PRINTED = bytes({*b"\t\n\r\f", *range(0x20, 0x7F)})
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_DMG = _converted("a disk image of macOS (DMG)", "dmg")


def find_kind(head: bytes, tail: bytes = b"") -> Kind | None:
    """Return what a file certainly is by its first and last bytes, None when it may be a disk."""
    for at, magic, kind in _KINDS:
        if head.startswith(magic, at):
            return kind
    if _is_text(head):
        return VMDK_DESCRIPTOR if _DESCRIPTOR.match(head) else _TEXT
    if _is_efi(head):
        return _BOOTED
    if _is_old_tar(head):
        return _TAR
    # with another length it cannot be a disk, and `ensure_sound` says so
    if len(head) % 512 == 0 and _is_page(head):
        return _PAGE
    return _DMG if tail[-512:-508] == b"koly" else None


def _is_text(head: bytes) -> bool:
    """Tell whether a file is all text, of a length that a disk can have: `ensure_sound` refuses other lengths."""
    return 0 < len(head) < _WHOLE and len(head) % 512 == 0 and not head.translate(None, _PRINTED) and not _is_page(head)


def _is_page(head: bytes) -> bool:
    return head[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES)


def _is_efi(head: bytes) -> bool:
    """Tell whether a file is a program for EFI firmware, as a kernel with its initrd in one file is (PE/COFF, 2)."""
    at = int.from_bytes(head[60:64], "little")
    return head[:2] == b"MZ" and head[at : at + 4] == b"PE\0\0"


def _is_old_tar(head: bytes) -> bool:
    """Tell whether a file begins with a header of tar before POSIX, which only its checksum shows (tar(5))."""
    digits = head[148:156].strip(b" \0")
    if len(head) < 512 or not head[0] or not digits.isdigit() or not head[124:136].strip(b" \0").isdigit():
        return False
    return int(digits, 16) == int(f"{sum(head[:148]) + 8 * 32 + sum(head[156:512]):o}", 16)


def is_iso(head: bytes) -> bool:
    """Tell whether a file has the first volume descriptor of ISO 9660; some of these are disks, too."""
    return head[32769:32774] == b"CD001"


_BARE = (  # where the magic is, and what has it: sources as above
    (1080, b"\x53\xef", "an ext file system"), (0, b"XFSB", "an XFS file system"), (4086, b"SWAPSPACE2", "swap space"),
    (512, b"LABELONE", "a physical volume of LVM"), (4096, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"), (1040, b"\x8f\x13", "a Minix file system"),
    (4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcachefs file system"),
)  # fmt: skip


def find_bare(head: bytes) -> str | None:
    """Return what a file is that fills a disk without partitions and without a boot sector; None for another one."""
    if head[510:512] == b"\x55\xaa":
        return None
    return next((what for at, magic, what in _BARE if head.startswith(magic, at)), None)


def cure_for(kind: Kind, path: str | None) -> str:
    """Return what to do with a file; None stands for one that has no path here."""
    return kind.cure.format(shlex.quote(path) if path else "FILE")

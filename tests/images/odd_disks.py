"""Disk images that programs have left open, that need other images, or that are not images: made by QEMU if it can, else
byte by byte.
"""

from __future__ import annotations

import io
import signal
import struct
import subprocess
import tarfile
import uuid
from pathlib import Path

from tests.images.disks import make_disk, qemu_img

_WRITES = ("write -P 5 0 1M", "write -P 6 3M 64k")


def killed(path: Path, form: str, writes: tuple[str, ...] = _WRITES) -> None:
    """Write to an image by QEMU, which is killed before it closes it."""
    with subprocess.Popen(["qemu-io", "-f", form, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin and writer.stdout
        for write in writes:  # one at a time: it waits for its input to become readable, which it has read by then
            writer.stdin.write(f"{write}\n".encode())
            writer.stdin.flush()
            assert b"wrote" in writer.stdout.readline() and b"ops" in writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)


def left_open_qcow2(path: Path) -> Path:
    """Make a qcow2 image whose counts of clusters are wrong, but whose data are right."""
    qemu_img("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "8M")
    killed(path, "qcow2")
    assert path.read_bytes()[79] & 1, "it is not marked as open"
    return path


def crc32c(data: bytes) -> int:
    """Return the checksum that VHDX has (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _bit in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def left_open_vhdx(path: Path) -> Path:
    """Make a VHDX image whose last change of its table stands only in its log, as a crash leaves it.

    QEMU writes the log, then the table, and the headers name the log meanwhile (block/vhdx-log.c): the table is put back.
    """
    qemu_img("create", "-q", "-f", "vhdx", "-o", "block_size=1M,log_size=1M", path, "8M")
    killed(path, "vhdx", ("write -P 5 0 1M",))
    data = bytearray(path.read_bytes())
    (log,) = struct.unpack_from("<Q", data, 65536 + 72)
    entries = [at for at in range(log, log + (1 << 20), 4096) if data[at : at + 4] == b"loge"]
    last = max(entries, key=lambda at: struct.unpack_from("<Q", data, at + 16)[0])
    guid = data[last + 32 : last + 48]
    (table,) = struct.unpack_from("<Q", data, last + 64 + 16)  # where the entry's first descriptor is to be written
    data[table : table + 4096] = bytes(4096)
    for at in (65536, 131072):
        data[at + 48 : at + 64] = guid
        data[at + 4 : at + 8] = bytes(4)
        struct.pack_into("<I", data, at + 4, crc32c(bytes(data[at : at + 4096])))
    path.write_bytes(data)
    return path


def vhdx_with_parent(path: Path) -> Path:
    """Make a VHDX image that says that it has a parent."""
    data = bytearray(make_disk(path, "vhdx").read_bytes())
    item = uuid.UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B").bytes_le
    at = data.index(item)
    (offset,) = struct.unpack_from("<I", data, at + 16)
    region = data.rindex(b"metadata", 0, at)
    data[region + offset + 4] |= 2
    path.write_bytes(data)
    return path


def vdi_with_parent(path: Path, *, how: str) -> Path:
    """Make a VDI image that is the difference to another, by its type, its link or its parent."""
    data = bytearray(make_disk(path, "vdi").read_bytes())
    if how == "type":
        struct.pack_into("<I", data, 76, 4)
    else:
        at = {"link": 424, "parent": 440}[how]
        data[at : at + 16] = uuid.uuid4().bytes
    path.write_bytes(data)
    return path


def split_vmdk(folder: Path, subformat: str) -> Path:
    """Make a VMDK image in several files, and return its descriptor."""
    raw = folder / "whole.raw"
    raw.write_bytes(b"\1" * (1 << 20))
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, folder / "disk.vmdk")
    return folder / "disk.vmdk"


def qcow1(path: Path) -> Path:
    """Make a qcow image of version 1."""
    return make_disk(path, "qcow")


def parallels(path: Path) -> Path:
    """Make a Parallels disk."""
    return make_disk(path, "parallels")


def sif(path: Path) -> Path:
    """Make the beginning of a SIF image: its launcher, then its magic and version."""
    path.write_bytes(b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0" + b"01\0" + b"02\0" + bytes(1 << 16))
    return path


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    """Write a tar archive."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path

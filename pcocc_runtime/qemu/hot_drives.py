"""Drives that a running VM is given, in QEMU's words (docs/interop/qemu-qmp-ref).

QEMU gets the open file of a drive, on which its lock lies, in a set of descriptors. What a VM has been given is read
from QEMU itself: the sets, each with the path that we have told it, and the devices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pcocc_runtime.documents.cluster import Drive
from pcocc_runtime.errors import RequestError
from pcocc_runtime.qemu.hot_names import drive_of_set, set_of

_FORM = "write PATH, with ,format=qcow2 ,mmp=cluster or ,cache=none behind it where that is meant"
_VALUES = {
    "format": ("raw", "qcow2"),
    "mmp": ("yes", "no", "cluster"),
    "cache": ("writeback", "none", "writethrough", "directsync", "unsafe"),
}
_OPAQUE = "pcocc drive "
_DIRECT, _NO_FLUSH = ("none", "directsync"), "unsafe"
_THROUGH = ("writethrough", "directsync")


class Attached(NamedTuple):
    """A drive's name, which its guest knows as the serial number; its path; whether QEMU still has its device."""

    name: str
    path: str
    has_device: bool


def parse_drive(text: str) -> Drive:
    """Return the drive of a word PATH[,OPTION=VALUE...]; options are taken from its end: a path may contain commas."""
    path, options = text, dict[str, str]()
    while found := re.fullmatch(r"(.+),(format|mmp|cache)=([^,/]*)", path, re.DOTALL):
        path, name, value = found.groups()
        if value not in _VALUES[name]:
            raise RequestError(f"{text[:200]!r}: {name} cannot be {value!r}", f"it can be {', '.join(_VALUES[name])}")
        if name in options:
            raise RequestError(f"{text[:200]!r} has {name} twice", _FORM)
        options[name] = value
    if not path or path.startswith(","):
        raise RequestError(f"{text[:200]!r} names no drive", _FORM)
    return replace(Drive(path), **options)


def render_drive(drive: Drive) -> str:
    """Return the word of a drive."""
    usual = Drive("")
    named = ((name, str(getattr(drive, name))) for name in _VALUES)
    return drive.path + "".join(f",{name}={value}" for name, value in named if value != getattr(usual, name))


def plan_set(name: str, path: str) -> dict[str, Any]:
    """Return the arguments of add-fd."""
    return {"fdset-id": set_of(name), "opaque": f"{_OPAQUE}{path}"}


def plan_node(name: str, drive: Drive) -> dict[str, Any]:
    """Return the arguments of blockdev-add."""
    cache = {"direct": drive.cache in _DIRECT, "no-flush": drive.cache == _NO_FLUSH}
    file = {"driver": "file", "filename": f"/dev/fdset/{set_of(name)}", "cache": cache}
    if drive.mmp == "no":
        file["locking"] = "off"
    return {
        "driver": drive.format, "node-name": name, "file": file, "cache": cache, "discard": "unmap",
        "detect-zeroes": "unmap",
    }  # fmt: skip


def plan_device(name: str, drive: Drive, bus: str) -> dict[str, Any]:
    """Return the arguments of device_add; on the bus of an SCSI controller, a SCSI disk."""
    driver = "scsi-hd" if bus.startswith("scsi") else "virtio-blk-pci"
    through = {"write-cache": "off"} if drive.cache in _THROUGH else {}
    shared = {"share-rw": True} if drive.mmp != "yes" else {}
    # as for the drives of its boot (disks.py): a full file system stops the VM
    return {
        "driver": driver, "id": name, "drive": name, "serial": name, "bus": bus, "werror": "stop", "rerror": "stop",
        **through, **shared,
    }  # fmt: skip


def find_attached(sets: Iterable[dict[str, Any]], blocks: Iterable[dict[str, Any]]) -> tuple[Attached, ...]:
    """Return the drives that were attached, from what query-fdsets and query-block say."""
    devices = {part for one in blocks for part in str(one.get("qdev", "")).split("/")}
    found = []
    for one in sets:
        name = drive_of_set(int(one["fdset-id"]))
        opaque = next((str(fd["opaque"]) for fd in one.get("fds", ()) if "opaque" in fd), "")
        if opaque.startswith(_OPAQUE):
            found.append(Attached(name, opaque.removeprefix(_OPAQUE), name in devices))
    return tuple(sorted(found, key=lambda one: set_of(one.name)))


def next_name(disks: int, attached: Sequence[Attached]) -> str:
    """Return the name of the next drive of a VM that was booted with so many disks."""
    taken = {one.name for one in attached}
    return next(name for number in range(disks, disks + len(taken) + 1) if (name := f"disk{number}") not in taken)

"""A VM's disk as its QEMU tells it, and the block nodes that a save adds, as options of its command blockdev-add.

All of it is QEMU's own JSON: qemu-qmp-ref, query-block and blockdev-add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pcocc_runtime.documents.save import SAVE_FILTER, SAVE_OVERLAY

if TYPE_CHECKING:
    from pcocc_runtime.qemu.qmp import Message


class QemuDisk(NamedTuple):
    """A disk of a running VM: the path of its device in QEMU, its block node and size in bytes, how it is cached."""

    device: str
    node: str
    size: int
    direct: bool
    no_flush: bool


def parse_disk(answer: list[Message], disk: str) -> QemuDisk | None:
    """Return a disk from QEMU's answer to query-block, None when it is not there."""
    for one in answer:
        if one["device"] == disk and (medium := one.get("inserted")):
            cache = medium["cache"]
            return QemuDisk(
                one.get("qdev", ""), medium["node-name"], medium["image"]["virtual-size"], cache["direct"],
                cache["no-flush"],
            )
    return None


def plan_overlay(path: str, disk: QemuDisk) -> Message:
    """Return QEMU's options of the second layer, which has the same cache settings as the first."""
    flags = {"direct": disk.direct, "no-flush": disk.no_flush}
    file = {"driver": "file", "filename": path, "cache": flags, "discard": "unmap"}
    return {
        "driver": "qcow2", "node-name": SAVE_OVERLAY, "backing": None, "cache": flags, "discard": "unmap",
        "file": file,
    }


def plan_aside(path: str) -> Message:
    """Return QEMU's options of the file of old blocks, which nobody needs after a crash."""
    cache = {"direct": False, "no-flush": True}
    return {
        "driver": "qcow2", "node-name": SAVE_OVERLAY, "cache": cache,
        "file": {"driver": "file", "filename": path, "cache": cache},
    }


def plan_filter(node: str) -> Message:
    """Return QEMU's options of the filter between guest and drive, which keeps the copy's errors from the guest."""
    return {
        "driver": "copy-before-write", "node-name": SAVE_FILTER, "file": node, "target": SAVE_OVERLAY,
        "on-cbw-error": "break-snapshot", "discard": "unmap",
    }  # fmt: skip

"""A second layer upon a running VM's disk: from then on the first does not change, and can be copied.

The VM's keeper merges the second layer into the first when the connection ends (docs/decisions/012-save.md).
"""

from __future__ import annotations

from pathlib import Path

from pcocc_runtime.documents.save import SAVE_OVERLAY
from pcocc_runtime.errors import NodeError
from pcocc_runtime.images import qemu_img
from pcocc_runtime.qemu.disks import disk_id
from pcocc_runtime.qemu.save_nodes import QemuDisk, parse_disk, plan_overlay
from pcocc_runtime.system.saver_connection import SaverConnection


def read_disk(link: SaverConnection, index: int) -> QemuDisk:
    """Return what QEMU says of a disk."""
    found = parse_disk(link.command("query-block"), disk_id(index))
    if found is None:
        raise NodeError(f"{link.vm}'s QEMU has no disk {disk_id(index)}")
    return found


def open_second_layer(link: SaverConnection, disk: Path, index: int) -> QemuDisk:
    """Have QEMU open an empty layer for a disk, beside the disk's file, which has no name any more; return the disk."""
    shown = read_disk(link, index)
    overlay = disk.with_name(disk.name + ".save")
    link.tell_layer(str(overlay))
    try:
        qemu_img.create_above(disk, shown.size, overlay, trusted=True)
        link.command("blockdev-add", **plan_overlay(str(overlay), shown))
    finally:
        overlay.unlink(missing_ok=True)  # QEMU has it open, and nothing is left of it when QEMU closes it
    return shown


def put_second_layer(link: SaverConnection, shown: QemuDisk) -> None:
    """Put the layer that was opened upon the disk."""
    link.command("blockdev-snapshot", node=shown.node, overlay=SAVE_OVERLAY)

"""Saving a persistent drive of a running VM as an image: docs/decisions/012-save.md tells how and why.

The guest goes on writing to the drive itself. From the frozen moment on, QEMU keeps in a file on scratch what
the guest is about to overwrite: drive and file together are the drive as it was, which is read through QEMU
over a unix socket (NBD). The VM's keeper undoes all of that, however this process ends.
"""

from __future__ import annotations

from pathlib import Path

from pcocc_runtime.documents.save import EXPORT_SOCKET, SAVE_FILTER, SAVE_VIEW
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.images import qemu_img
from pcocc_runtime.images.second_layer import read_disk
from pcocc_runtime.progress import Note, Progress
from pcocc_runtime.qemu.save_nodes import plan_aside, plan_filter
from pcocc_runtime.save.moment import SavedVm, frozen, on_scratch
from pcocc_runtime.system.saver_connection import SaverConnection

# since then copy-before-write has on-cbw-error: when an old block cannot be kept, the guest gets no error
_OLDEST = (7, 1)
_EXPORT = "drive"


def copy_drive(
    vm: SavedVm, index: int, link: SaverConnection, layer: Path, safe: bool, progress: Progress, note: Note
) -> None:
    """Write a drive, as it is when its file systems are frozen, to the file `layer`, which is on disk afterwards."""
    ensure_able(link)
    address = str(vm.directory / EXPORT_SOCKET)
    keep_old_blocks(vm, index, link, safe, progress, note)
    link.command("nbd-server-start", addr={"type": "unix", "data": {"path": address}})
    link.command(
        "block-export-add", type="nbd", id="save-export", name=_EXPORT, writable=False,
        **{"node-name": SAVE_VIEW},
    )
    try:
        qemu_img.convert(qemu_img.export(address, _EXPORT), "qcow2", layer, progress(f"saving drive {index}"))
    except PcoccError as error:
        link.command("query-status")  # NodeError when the VM has ended
        raise NodeError(
            f"drive {index} of {vm.name} could not be read completely: {error.message}",
            f"if the guest overwrote more during the save than fits into {vm.facts.scratch}, free space there"
            " or save when it writes less",
        ) from None


def ensure_able(link: SaverConnection) -> None:
    """Raise RequestError when this QEMU cannot save drives without danger to them."""
    found = link.command("query-version")["qemu"]
    if (found["major"], found["minor"]) < _OLDEST:
        raise RequestError(
            f"QEMU {found['major']}.{found['minor']} cannot save persistent drives", "QEMU 7.1 and later can"
        )


def keep_old_blocks(
    vm: SavedVm, index: int, link: SaverConnection, safe: bool, progress: Progress, note: Note
) -> None:
    """Have QEMU keep what the guest overwrites on a drive, and show the drive as it is now."""
    shown = read_disk(link, index)
    aside = Path(vm.facts.scratch, f"{vm.name}.old")
    link.tell_drive(shown.device, shown.node)
    link.tell_layer(str(aside))
    try:
        with on_scratch(vm):
            qemu_img.create_empty(aside, shown.size)
        link.command("blockdev-add", **plan_aside(str(aside)))
        link.command("blockdev-add", **plan_filter(shown.node))
    finally:
        aside.unlink(missing_ok=True)  # QEMU has it open, and nothing is left of it when QEMU closes it
    progress("freezing the guest's file systems")(0, 0)
    with frozen(vm, link, safe, note):
        link.command("qom-set", path=shown.device, property="drive", value=SAVE_FILTER)
    link.command("blockdev-add", driver="snapshot-access", file=SAVE_FILTER, **{"node-name": SAVE_VIEW})

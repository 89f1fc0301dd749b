"""The disks of a VM in QEMU's words: controllers where the model needs them, disks in order, the seed."""

from __future__ import annotations

from dataclasses import dataclass

_IDE_PORTS = {False: [f"bus=ide.{port}" for port in range(6)],  # q35: AHCI
              True: [f"bus=ide.{unit // 2},unit={unit % 2}" for unit in range(4)]}  # pc: two PIIX channels
_FIRST_PARTITIONS = {"virtio": "/dev/vda1", "virtio-scsi": "/dev/sda1", "ide": "/dev/sda1"}


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk image; `shared` with other VMs that write it too, `locked` against any other QEMU."""

    path: str
    format: str = "qcow2"
    cache: str = "unsafe"
    shared: bool = False
    locked: bool = True


def plan_disks(
    model: str, machine: str, disks: tuple[Disk, ...], seed: str, aio: str | None = None
) -> list[str]:
    """Return the options of all disks and of the cloud-init seed; the first disk is the one to boot from.

    `aio` is how QEMU reads and writes them, None for threads.
    """
    return [
        *(["-device", "virtio-scsi-pci,id=scsi"] if model == "virtio-scsi" else []),
        *[
            word
            for index, disk in enumerate(disks)
            for word in _plan_disk(_device(model, machine, index), index, disk, aio)
        ],
        "-drive", f"file={escape(seed)},format=raw,if=none,id=seed,readonly=on",
        "-device", f"{_device(model, machine, len(disks), 'cd')},drive=seed",
    ]  # fmt: skip


def most_disks(model: str, machine: str) -> int:
    """Return how many disks a VM can have beside its seed."""
    return len(_ide_ports(machine)) - 1 if model == "ide" else 16


def count_slots(model: str, disks: int) -> int:
    """Return the PCI slots that so many disks and the seed take."""
    return {"virtio": disks + 1, "virtio-scsi": 1, "ide": 0}[model]


def _device(model: str, machine: str, place: int, kind: str = "hd") -> str:
    if model == "ide":
        return f"ide-{kind},{_ide_ports(machine)[place]}"
    return "virtio-blk-pci" if model == "virtio" else f"scsi-{kind},bus=scsi.0"


def _ide_ports(machine: str) -> list[str]:
    kind = machine_kind(machine)
    return _IDE_PORTS[kind.startswith("pc") and not kind.startswith("pc-q35")]


def machine_kind(machine: str) -> str:
    """Return the machine's name in a value of -machine: it stands first or behind `type=`, and the last one counts."""
    first, *rest = machine.split(",")
    words = [first if "=" in first else f"type={first}", *rest]
    return next((word[5:] for word in reversed(words) if word.startswith("type=")), "")


def disk_id(index: int) -> str:
    """Return QEMU's id of a VM's disk, by which its errors are told."""
    return f"disk{index}"


def first_partition(model: str) -> str:
    """Return what Linux calls the first partition of the first disk."""
    return _FIRST_PARTITIONS[model]


def _plan_disk(device: str, index: int, disk: Disk, aio: str | None) -> list[str]:
    # a full file system stops the VM: the guest would take an error for a broken disk
    drive = (
        f"file={escape(disk.path)},format={disk.format},if=none,id={disk_id(index)},cache={disk.cache},discard=unmap,"
        f"werror=stop,rerror=stop{f',aio={aio}' if aio else ''}{'' if disk.locked else ',file.locking=off'}"
    )
    boot = ",bootindex=1" if index == 0 else ""
    shared = ",share-rw=on" if disk.shared else ""
    # the serial number tells a guest which is which: Linux probes SCSI disks at once, and sda may be any of
    # them
    return [
        "-drive", drive, "-device", f"{device},drive={disk_id(index)},serial={disk_id(index)}{boot}{shared}",
    ]


def escape(text: str) -> str:
    """Return a value as it stands in a QEMU option: commas doubled."""
    return text.replace(",", ",,")

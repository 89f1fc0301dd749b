"""The disks of a VM in QEMU's words: controllers where the model needs them, disks in order, the seed."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from typing import NamedTuple

_IDE_PORTS = {False: [f"bus=ide.{port}" for port in range(6)],  # q35: AHCI
              True: [f"bus=ide.{unit // 2},unit={unit % 2}" for unit in range(4)]}  # pc: two PIIX channels
_DIRECT = ("none", "directsync")  # values of cache that bypass the host's page cache (O_DIRECT)
_MOST_QUEUES = 256  # of the 1,024 of a device
_MOST_THREADS = 4  # of a disk: more would only wait for the disk itself
_FIRST_PARTITIONS = {"virtio": "/dev/vda1", "virtio-scsi": "/dev/sda1", "ide": "/dev/sda1"}


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk image; `shared` with other VMs that write it, too, or `locked` against any other QEMU.

    Drives are `persistent`; all others are deleted with their VM.
    """

    path: str
    format: str = "qcow2"
    cache: str = "unsafe"
    shared: bool = False
    locked: bool = True
    persistent: bool = False


class DiskIo(NamedTuple):
    """How QEMU reads and writes disks: the ways that work here, the best first, and the queues of each disk.

    `threads` serve a disk's queues, those of persistent drives only with `all_disks`.
    """

    ways: tuple[str, ...] = ()
    queues: int = 1
    threads: int = 1
    all_disks: bool = False

    def threads_of(self, disk: Disk) -> int:
        """Return how many threads of its own a disk has."""
        return self.threads if self.all_disks or not disk.persistent else 0

    def way_of(self, disk: Disk) -> str:
        """Return the value of aio: the kernel's own (`native`) would block where the host's cache is used."""
        fit = (one for one in self.ways if one != "native" or disk.cache in _DIRECT)
        return next(fit, "threads")


ONE_QUEUE = DiskIo()


def plan_io(vcpus: int, ways: tuple[str, ...], has: Set[str]) -> DiskIo:
    """Return how the disks of a VM are read and written; `has` is what its QEMU can do.

    There is a queue for each vCPU, so that none waits for another's lock. There is a thread for four queues if QEMU
    can divide a disk's queues among threads (from 9.0 on), otherwise one for each disk. Before 9.0, persistent
    drives have no thread: a save reads a drive over NBD, and when it hangs up, QEMU 7.2 runs the end of that
    connection in the drive's thread and aborts (nbd_blockdev_client_closed: qemu_in_main_thread() fails).
    """
    queues, several = min(vcpus, _MOST_QUEUES), "vq-mapping" in has
    return DiskIo(ways, queues, min(max(queues // 4, 1), _MOST_THREADS) if several else 1, several)


def plan_disks(model: str, machine: str, disks: tuple[Disk, ...], seed: str, io: DiskIo) -> list[str]:
    """Return the options of all disks and of the cloud-init seed; the first disk is the one to boot from."""
    return [
        *(_plan_controller(all(map(io.threads_of, disks)), io) if model == "virtio-scsi" else []),
        *[word for index, disk in enumerate(disks) for word in _plan_disk(model, machine, index, disk, io)],
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
    """Return the machine's name in a value of -machine: the first word, or the last `type=` if there is one."""
    first, *rest = machine.split(",")
    words = [first if "=" in first else f"type={first}", *rest]
    return next((word[5:] for word in reversed(words) if word.startswith("type=")), "")


def disk_id(index: int) -> str:
    """Return QEMU's id of a VM's disk, which its errors name."""
    return f"disk{index}"


def first_partition(model: str) -> str:
    """Return what Linux calls the first partition of the first disk."""
    return _FIRST_PARTITIONS[model]


def _plan_controller(threaded: bool, io: DiskIo) -> list[str]:
    """Return the one controller of SCSI disks, with a thread of its own if all of the disks may have one."""
    device = f"virtio-scsi-pci,id=scsi,num_queues={io.queues}"
    if not threaded:
        return ["-device", device]
    return ["-object", "iothread,id=scsi-0", "-device", f"{device},iothread=scsi-0"]


def _plan_disk(model: str, machine: str, index: int, disk: Disk, io: DiskIo) -> list[str]:
    # a full file system stops the VM, because its guest would take an error for a broken disk
    drive = (
        f"file={escape(disk.path)},format={disk.format},if=none,id={disk_id(index)},cache={disk.cache},discard=unmap,"
        f"detect-zeroes=unmap,werror=stop,rerror=stop,aio={io.way_of(disk)}"
        f"{'' if disk.locked else ',file.locking=off'}"
    )
    # the serial number tells a guest which disk is which: Linux probes SCSI disks in parallel, so sda may be
    # any of them
    device, *more = _device(model, machine, index).split(",")
    words: dict[str, object] = {"drive": disk_id(index), "serial": disk_id(index)}
    words |= {"bootindex": 1} if index == 0 else {}
    words |= {"share-rw": True} if disk.shared else {}
    if model != "virtio":
        return ["-drive", drive, "-device", ",".join([device, *more, *_render_words(words)])]
    threads = [f"{disk_id(index)}-{number}" for number in range(io.threads_of(disk))]
    made = [word for name in threads for word in ("-object", f"iothread,id={name}")]
    words["num-queues"] = io.queues
    if len(threads) < 2:
        words |= {"iothread": threads[0]} if threads else {}
        return [*made, "-drive", drive, "-device", ",".join([device, *_render_words(words)])]
    words["iothread-vq-mapping"] = [{"iothread": name} for name in threads]  # queues in turn
    return [*made, "-drive", drive, "-device", json.dumps({"driver": device, **words})]


def _render_words(words: dict[str, object]) -> list[str]:
    return [f"{name}={'on' if value is True else value}" for name, value in words.items()]


def escape(text: str) -> str:
    """Return a value as it stands in a QEMU option: commas doubled."""
    return text.replace(",", ",,")

"""A VM that goes on from a checkpoint: before it runs, its stored files are checked, and what must be unchanged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from pcocc_runtime import naming
from pcocc_runtime.documents.checkpoint import (
    DISK,
    MEMORY,
    VARIABLES,
    SeenFile,
    StoredFile,
    VmCheckpoint,
    damaged,
    decode_vm_checkpoint,
    plan_words,
)
from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import qemu_img
from pcocc_runtime.progress import unwatched
from pcocc_runtime.qemu.memory_file import has_mapped_memory, plan_reading
from pcocc_runtime.qemu.stored_topology import keep_shape
from pcocc_runtime.qemu.version import parse_version
from pcocc_runtime.system import hardware, process
from pcocc_runtime.system.copy import begin_sum, copy_stream, read_pieces
from pcocc_runtime.vm.plan import Hardware
from pcocc_runtime.vm.stored import ensure_content, read_checkpoint, read_small

_OTHER = "use another node, or start the job anew without --pcocc-restart"
_SIZES = "leave out sbatch's options about CPUs and memory: the checkpoint says how much the VMs need"
_NOUNS = {
    "-machine": "the machine", "-cpu": "the CPU model", "-smp": "the number and places of CPUs",
    "-m": "the memory", "-numa": "the NUMA nodes", "-global": "a property of devices",
}  # fmt: skip


class Restart(NamedTuple):
    """A VM of a checkpoint. `memory` is a descriptor of its memory's file, which QEMU inherits.

    QEMU is started with `options` for that, and calls the file `source`.
    """

    directory: Path
    record: VmCheckpoint
    memory: int
    options: tuple[str, ...]
    source: str

    def keep_shape(self, hardware: Hardware) -> Hardware:
        """Return the guest's hardware as it was, placed on the CPUs and memory that its task has now.

        RequestError when the task has another number of CPUs.
        """
        was, now = self.record.topology.shape.cpus, hardware.topology.shape.cpus
        if was != now:
            vm = naming.vm_name(self.record.rank)
            text = f"the number of CPUs of {vm} was {was} when it was stored, and would be {now} now"
            raise RequestError(text, _SIZES)
        found = keep_shape(self.record.topology, hardware.topology)
        memory = sum(node.memory for node in found.nodes) if len(found.nodes) > 1 else hardware.memory
        return hardware._replace(topology=found, memory=memory)

    def ensure_same(self, argv: Sequence[str]) -> None:
        """Raise RequestError, which names the first difference, unless this QEMU would be the VM that was stored."""
        vm = naming.vm_name(self.record.rank)
        words = plan_words(argv)
        for (name, was), (other, now) in zip(self.record.words, words, strict=False):
            if (name, was) != (other, now):
                noun = _NOUNS.get(name, "a device") if name == other else "a device"
                hint = _SIZES if name == "-m" else _OTHER
                text = f"{vm} would differ in {noun}: it was stored with {was!r}, and would have {now!r} now"
                raise RequestError(text, hint)
        if len(self.record.words) != len(words):
            counts = f"{len(self.record.words)} devices and other parts, and would have {len(words)} now"
            raise RequestError(f"{vm} was stored with {counts}", _OTHER)


def open_restart(directory: Path, rank: int, qemu: str, accel: str) -> Restart:
    """Return a VM's part of a checkpoint; RequestError unless its memory is unchanged and `qemu` can read it."""
    name = naming.vm_name(rank)
    path = f"{name}.json"
    record = decode_vm_checkpoint(read_small(directory, read_checkpoint(directory), path), str(directory / path))
    if record.rank != rank or MEMORY not in record.files:
        raise damaged(str(directory / path), f"it does not belong to {name}")
    version = _ensure_readable(record, name, qemu, accel)
    one = record.files[MEMORY]
    fd = _open(directory, one)
    try:
        machine = begin_sum()
        for piece in read_pieces(fd):
            machine.update(piece)
        ensure_content(directory, one, os.fstat(fd).st_size, machine.hexdigest())
        return Restart(directory, record, fd, *plan_reading(fd, has_mapped_memory(version)))
    except BaseException:  # whatever it is, it is raised again
        os.close(fd)
        raise


def _ensure_readable(record: VmCheckpoint, vm: str, qemu: str, accel: str) -> tuple[int, int]:
    """Return the version of the node's QEMU; RequestError if it cannot read the memory."""
    version = parse_version(process.run([qemu, "--version"])) or (0, 0)
    here = ".".join(map(str, version))
    if record.qemu != here:
        raise RequestError(f"{vm} was stored by QEMU {record.qemu}, and this node has {here}", _OTHER)
    if record.accel != accel:
        raise RequestError(f"{vm} was stored with the accelerator {record.accel}, and this node has {accel}", _OTHER)
    if record.cpu and record.cpu != (cpu := hardware.read_cpu_name()):
        raise RequestError(f"{vm} was stored on a CPU {record.cpu!r}, and this node has {cpu!r}", _OTHER)
    return version


def take_disk(restart: Restart, image: str | None, path: PurePath) -> str | None:
    """Make the VM's layer from the stored one, upon the image at its path on this node.

    Return the layer's path, None if the VM has no layer.
    """
    ensure_seen(restart.record.image, "the image")
    if DISK not in restart.record.files:
        return None
    _take(restart, DISK, path)
    if image is not None:
        qemu_img.rename_backing(path, image)
    return str(path)


def take_variables(restart: Restart, path: PurePath) -> str:
    """Make the UEFI variables from the stored ones."""
    _take(restart, VARIABLES, path)
    return str(path)


def ensure_drives(restart: Restart) -> None:
    """Raise RequestError when a persistent drive has been written to since the checkpoint."""
    for drive in restart.record.drives:
        ensure_seen(drive, "the persistent drive")


def ensure_seen(seen: SeenFile | None, noun: str) -> None:
    """Raise RequestError unless a file is as it was at the time of the checkpoint."""
    if seen is None:
        return
    try:
        status = os.stat(seen.path)
    except OSError as error:
        raise RequestError(f"{noun} {seen.path} of the checkpoint cannot be read: {error.strerror}", _OTHER) from None
    if (status.st_size, status.st_mtime_ns) != (seen.size, seen.mtime_ns):
        raise RequestError(
            f"{noun} {seen.path} has changed since the checkpoint was made",
            "the VMs' stored memory needs it unchanged: restore it, or start the job anew without --pcocc-restart",
        )


def _take(restart: Restart, kind: str, target: PurePath) -> None:
    if kind not in restart.record.files:
        raise damaged(f"{naming.vm_name(restart.record.rank)}.json", f"it names no {kind}")
    one = restart.record.files[kind]
    Path(target).unlink(missing_ok=True)
    with open(_open(restart.directory, one), "rb", buffering=0) as stream:
        size, digest = copy_stream(stream.read, target, one.size, unwatched)
    ensure_content(restart.directory, one, size, digest)


def _open(directory: Path, one: StoredFile) -> int:
    if "/" in one.name or one.name.startswith("."):
        raise damaged(str(directory), f"it names the file {one.name[:80]!r}")
    try:
        return os.open(directory / one.name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise damaged(str(directory / one.name), error.strerror or "it cannot be opened") from None

"""A checkpoint as it lies in its directory: what each VM was, and the sums of the files that hold it.

The link `current` in the directory a user names leads to one beside it that is whole, so that another can take its
place at once. There, `boot` is what the boot step was given, the frozen cluster and the job's keys; `vmN.json` is a
VM's record beside its memory `vmN.memory`, its layer `vmN.disk`, its seed `vmN.seed`, its UEFI variables `vmN.vars`.
All are the user's own, as are the rights of whoever reads them, so everything is checked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pcocc_runtime.documents.codec import parse_document, render_document
from pcocc_runtime.documents.hardware import Topology
from pcocc_runtime.errors import RequestError

CHECKPOINT_VERSION = 1
CURRENT = "current"
BOOT_COPY = "boot"
WHOLE_FILE = "checkpoint.json"  # written last: without it a directory is no checkpoint
MEMORY, DISK, SEED, VARIABLES = "memory", "disk", "seed", "vars"
# what a VM's task (steps/checkpoint.py) says in lines, before the VM's name, to who waits for all (cli/checkpoint.py)
PAUSED, STORED, SUMMED = "paused", "stored", "summed"
FAR = "far"  # how far it is: bytes done and to do follow the name
# and what it is told, a line each: one word for all tasks
STORE, GO_ON, STAY, KEEP_IT, END_IT, HOLD_IT = "store", "go on", "stay", "keep", "end", "hold"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a checkpoint: its name there, its bytes, their sha256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file outside of the checkpoint that it needs as it was."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class VmCheckpoint:
    """A VM: its QEMU's version, the words of its command line that its memory depends on, and its files by kind.

    `cpu` is the host's where the guest sees that, else empty. `image` is what its layer lies on, `drives` are its
    persistent ones in their order.
    """

    rank: int
    job: int
    uuid: str
    qemu: str
    accel: str
    cpu: str
    topology: Topology
    words: tuple[tuple[str, str], ...]
    files: Mapping[str, StoredFile]
    image: SeenFile | None = None
    origin: str | None = None
    drives: tuple[SeenFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint: of which job, when (seconds of the epoch), the sums of `boot` and of each VM's record."""

    job: int
    made: int
    vms: int
    files: tuple[StoredFile, ...]


def encode_vm_checkpoint(vm: VmCheckpoint) -> bytes:
    """Return the content of a VM's record."""
    return render_document(vm, CHECKPOINT_VERSION).encode()


def decode_vm_checkpoint(data: bytes, path: str) -> VmCheckpoint:
    """Return a VM's record; RequestError when it is none."""
    try:
        return parse_document(VmCheckpoint, CHECKPOINT_VERSION, data)
    except ValueError as error:
        raise damaged(path, str(error)) from None


def encode_checkpoint(found: Checkpoint) -> bytes:
    """Return the content of `checkpoint.json`: a line with the sum of the rest, which nothing else has."""
    data = render_document(found, CHECKPOINT_VERSION).encode()
    return f"{_sum_of(data)}\n".encode() + data


def decode_checkpoint(data: bytes, path: str) -> Checkpoint:
    """Return what `checkpoint.json` says; RequestError when it is none."""
    sum_line, _, data = data.partition(b"\n")
    if sum_line != _sum_of(data).encode():
        raise damaged(path, "its content is not what was stored")
    try:
        return parse_document(Checkpoint, CHECKPOINT_VERSION, data)
    except ValueError as error:
        raise damaged(path, str(error)) from None


def _sum_of(data: bytes) -> str:
    from hashlib import sha256  # 5 ms that a job without a checkpoint need not pay

    return sha256(data).hexdigest()


def damaged(path: str, why: str) -> RequestError:
    """Return the refusal of a checkpoint that is not as it was made."""
    return RequestError(f"the checkpoint's file {path} is damaged: {why}", "use another checkpoint")


# the options that decide what is in a guest's memory, and where: all that follows them is compared
_COMPARED = ("-machine", "-cpu", "-smp", "-m", "-numa", "-device", "-global")


def plan_words(argv: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return those words of QEMU's command line that a guest's memory and devices depend on."""
    return tuple((name, value) for name, value in pairwise(argv) if name in _COMPARED)


def is_hosts_cpu(words: Sequence[tuple[str, str]]) -> bool:
    """Tell whether the guest sees the host's own CPU."""
    return any(name == "-cpu" and value.partition(",")[0] == "host" for name, value in words)

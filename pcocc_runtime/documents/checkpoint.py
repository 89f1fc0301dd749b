"""A checkpoint as it lies in its directory: what each VM was, and the sums of the files that hold it.

In the directory that a user names, the link `current` leads to a directory beside it that has a complete checkpoint; so
another checkpoint can take its place in one step. There, `boot` is what the boot step was given: the frozen cluster and
the job's keys. `vmN.json` is a VM's record, beside its memory `vmN.memory`, its layer `vmN.disk` and its UEFI
variables `vmN.vars`. All files are the user's own, and whoever reads them has the user's rights, so
everything is checked again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from pcocc_runtime.documents.codec import parse_document, render_document
from pcocc_runtime.documents.hardware import Topology
from pcocc_runtime.errors import RequestError

CHECKPOINT_VERSION = 1
CURRENT = "current"
BOOT_COPY = "boot"
WHOLE_FILE = "checkpoint.json"  # written last: without it a directory is no checkpoint
MEMORY, DISK, VARIABLES = "memory", "disk", "vars"
# the words of what a VM's task (steps/checkpoint.py) says to the command that waits for all tasks (cli/checkpoint.py)
PAUSED, STORED, SUMMED = "paused", "stored", "summed"
FAR = "far"  # how far it is with what it does
# what the command says to all tasks, a line for each word
STORE, GO_ON, STAY, KEEP_IT, END_IT, HOLD_IT = "store", "go on", "stay", "keep", "end", "hold"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a checkpoint: its name there, its bytes, their sha256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file outside of the checkpoint, which the checkpoint needs unchanged."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class VmCheckpoint:
    """A VM: its QEMU's version, those words of QEMU's command line that its memory depends on, and its files by kind.

    `cpu` is the name of the host's CPU if the guest sees it, else empty. `image` is what the layer is based on;
    `drives` are the persistent drives in their order.
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


class TaskWord(NamedTuple):
    """What a VM's task says; `done` and `total` are in bytes, and 0 unless the word is FAR."""

    word: str
    vm: str
    done: int = 0
    total: int = 0


def encode_task_word(said: TaskWord) -> bytes:
    """Return it as a line."""
    far = f" {said.done} {said.total}" if said.word == FAR else ""
    return f"{said.word} {said.vm}{far}\n".encode()


def decode_task_word(line: bytes) -> TaskWord | None:
    """Return what a task has said, None when the line is something else: anything in a step may write there."""
    found = re.fullmatch(rb"([a-z]+) (vm[0-9]+)(?: ([0-9]{1,20}) ([0-9]{1,20}))?\n", line)
    return TaskWord(found[1].decode(), found[2].decode(), int(found[3] or 0), int(found[4] or 0)) if found else None


def encode_vm_checkpoint(vm: VmCheckpoint) -> bytes:
    """Return the content of a VM's record."""
    return render_document(vm, CHECKPOINT_VERSION).encode()


def decode_vm_checkpoint(data: bytes, path: str) -> VmCheckpoint:
    """Return a VM's record; RequestError when it is damaged."""
    try:
        return parse_document(VmCheckpoint, CHECKPOINT_VERSION, data)
    except ValueError as error:
        raise damaged(path, str(error)) from None


def encode_checkpoint(found: Checkpoint) -> bytes:
    """Return the content of `checkpoint.json`; its first line is the sum of the rest, as no other file has that sum."""
    data = render_document(found, CHECKPOINT_VERSION).encode()
    return f"{_sum_of(data)}\n".encode() + data


def decode_checkpoint(data: bytes, path: str) -> Checkpoint:
    """Return what `checkpoint.json` says; RequestError when it is damaged."""
    sum_line, _, data = data.partition(b"\n")
    if sum_line != _sum_of(data).encode():
        raise damaged(path, "its content is not what was stored")
    try:
        return parse_document(Checkpoint, CHECKPOINT_VERSION, data)
    except ValueError as error:
        raise damaged(path, str(error)) from None


def _sum_of(data: bytes) -> str:
    from hashlib import sha256  # here, because it takes 5 ms, and most jobs have no checkpoint

    return sha256(data).hexdigest()


def damaged(path: str, why: str) -> RequestError:
    """Return the error for a checkpoint whose files have changed."""
    return RequestError(f"the checkpoint's file {path} is damaged: {why}", "use another checkpoint")


# the options that decide what is in a guest's memory, and where; the word after each is compared
_COMPARED = ("-machine", "-cpu", "-smp", "-m", "-numa", "-device", "-global")


def plan_words(argv: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return those words of QEMU's command line that a guest's memory and devices depend on."""
    return tuple((name, value) for name, value in pairwise(argv) if name in _COMPARED)


def is_hosts_cpu(words: Sequence[tuple[str, str]]) -> bool:
    """Tell whether the guest sees the host's own CPU."""
    return any(name == "-cpu" and value.partition(",")[0] == "host" for name, value in words)

"""The operation `@checkpoint`: this VM's part in a checkpoint of its cluster (docs/decisions/056-checkpoint.md).

Each VM's task makes its VM stand still and says so; when all do, it is told to store, and when all have, to let its
VM go on or to end it. Its VM goes on whenever its input ends before that, and however this process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pcocc_runtime import naming
from pcocc_runtime.documents.boot import BOOT_FILE
from pcocc_runtime.documents.checkpoint import (
    BOOT_COPY,
    DISK,
    END_IT,
    GO_ON,
    MEMORY,
    PAUSE_SOCKET,
    PAUSED,
    SEED,
    STORE,
    STORED,
    VARIABLES,
    SeenFile,
    StoredFile,
    VmCheckpoint,
    encode_vm_checkpoint,
    plan_words,
)
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.save.moment import SavedVm, read_vm
from pcocc_runtime.save.qemu_monitor import QemuMonitor
from pcocc_runtime.system import files, regular
from pcocc_runtime.system.copy import copy_stream, hash_file

_PAUSE_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_FAST = 1 << 50  # bytes a second: QEMU's own bound is meant for networks
_PASSED_OVER = ("vfio-pci", "vhost-user-fs-pci")


def check_words(words: Sequence[str]) -> Path:
    """Return the directory where the checkpoint is made."""
    if len(words) != 1 or not words[0].startswith("/"):
        raise RequestError("@checkpoint takes the absolute path of a directory", "'pcocc checkpoint DIR' runs it")
    return Path(words[0])


def operate(job: int, name: str, place: Path) -> int:
    """Store the VM, which runs on this node, in a directory that is there already."""
    vm = read_vm(name, Path(naming.job_dir(job) / name))
    argv = _read_argv(vm)
    with _paused(vm):
        _say(f"{PAUSED} {name}")
        _await(STORE)
        with QemuMonitor(str(vm.directory / "qmp"), name) as monitor:
            record = _store(job, vm, argv, place, monitor)
            files.replace_file(place / f"{name}.json", encode_vm_checkpoint(record))
            _say(f"{STORED} {name}")
            if _await(GO_ON, END_IT) == END_IT:
                monitor.end()
    return 0


def _read_argv(vm: SavedVm) -> list[str]:
    argv = regular.read_json(vm.directory / "qemu.json")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        raise NodeError(f"how {vm.name} was started is not known: qemu.json in its directory is missing or damaged")
    other = next((one for one in _PASSED_OVER if any(word.startswith(one) for word in argv)), None)
    if other:
        what = "a device of its node" if other == "vfio-pci" else "a directory over virtiofs"
        raise RequestError(
            f"{vm.name} has {what}, and cannot be stored with it",
            "boot the job without it; a directory over 9p is no hindrance while the guest has not mounted it",
        )
    return argv


@contextlib.contextmanager
def _paused(vm: SavedVm) -> Iterator[None]:
    """Have the VM stand still in the block; its keeper lets it go on, also when this process is killed."""
    with socket.socket(socket.AF_UNIX) as keeper:
        try:
            keeper.settimeout(_PAUSE_SECONDS)
            keeper.connect(str(vm.directory / PAUSE_SOCKET))
            answer: dict[str, Any] = json.loads(keeper.recv(4096) or b'{"error": ""}')
        except TimeoutError:
            raise NodeError(f"the QEMU of {vm.name} does not answer") from None
        except (OSError, ValueError):
            raise NodeError(f"{vm.name} has ended", "'pcocc ps -l' lists the VMs that run") from None
        if "error" in answer:
            why = f"does not run: {answer['error']}" if answer["error"] else "is being stored already"
            raise RequestError(f"{vm.name} {why}", "a checkpoint is of VMs that run, one checkpoint at a time")
        yield


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def _await(*words: str) -> str:
    """Return which of the words comes as a line of our input; NodeError when it ends instead."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            raise NodeError("the checkpoint was cut off", "the VMs go on, and an older checkpoint is as it was")
        line += piece
    word = line.decode(errors="replace").strip()
    if word not in words:
        raise RequestError(f"{word[:40]!r} is not what @checkpoint waits for", "'pcocc checkpoint' runs it")
    return word


def _store(job: int, vm: SavedVm, argv: list[str], place: Path, monitor: QemuMonitor) -> VmCheckpoint:
    version = monitor.command("query-version")["qemu"]
    found = {MEMORY: _store_memory(vm, place, monitor)}
    lasting = [Path(one.path) for one in vm.facts.disks if one.mmp is not None]
    layer = next((Path(one.path) for one in vm.facts.disks if one.mmp is None), None)
    variables = Path(vm.facts.scratch, f"{vm.name}.vars.fd")
    for kind, path in ((DISK, layer), (SEED, vm.directory / "seed.iso"), (VARIABLES, variables)):
        if path is not None and path.exists():
            found[kind] = _store_copy(path, place / f"{vm.name}.{kind}")
    if vm.name == "vm0":
        shutil.copyfile(vm.directory.parent / BOOT_FILE, place / BOOT_COPY)
    return VmCheckpoint(
        rank=int(vm.name[2:]),
        job=job,
        uuid=argv[argv.index("-uuid") + 1],
        qemu=f"{version['major']}.{version['minor']}",
        accel=argv[argv.index("-accel") + 1].partition(",")[0],
        words=plan_words(argv),
        files=found,
        image=_see(Path(vm.facts.image)) if vm.facts.image else None,
        origin=vm.facts.origin,
        drives=tuple(map(_see, lasting)),
    )


def _see(path: Path) -> SeenFile:
    status = path.stat()
    return SeenFile(str(path), status.st_size, status.st_mtime_ns)


def _store_copy(source: Path, target: Path) -> StoredFile:
    with regular.open_regular(source) as stream:
        total = os.fstat(stream.fileno()).st_size
        size, digest = copy_stream(stream.read, target, total, lambda done, total: None)
    _flush(target)
    return StoredFile(target.name, size, digest)


def _flush(path: Path) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def _store_memory(vm: SavedVm, place: Path, monitor: QemuMonitor) -> StoredFile:
    """Have QEMU write memory and devices; its disks are written out, and let go, before it is done."""
    path = place / f"{vm.name}.{MEMORY}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        monitor.command("migrate-set-parameters", {"max-bandwidth": _FAST})
        monitor.send_file("checkpoint", fd)
        monitor.command("migrate", {"uri": "fd:checkpoint"})
        while (state := monitor.command("query-migrate"))["status"] != "completed":
            if state["status"] in ("failed", "cancelled", "cancelling"):
                why = state.get("error-desc") or "is the file system full?"
                raise NodeError(f"the memory of {vm.name} could not be stored: {why}", "the VMs go on")
            time.sleep(_LOOK_SECONDS)  # QEMU has no event for it that it always sends
        os.fsync(fd)
        size = os.fstat(fd).st_size
    finally:
        os.close(fd)
    sys.stdout.flush()
    return StoredFile(path.name, size, hash_file(path, lambda done, total: None))

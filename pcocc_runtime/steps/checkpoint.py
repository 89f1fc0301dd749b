"""The operation `@checkpoint`: this VM's part in a checkpoint of its cluster (docs/decisions/058-checkpoint.md).

Each VM has a task, which stops the VM and says so. When all tasks have said that, they are told to store their VMs, and
each says when it is done. When all are done, they are told whether the VMs shall go on or stay still. Then each task
computes sums and writes its VM's record. The VM goes on if its task's input ends too early, and however the task ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pcocc_runtime import naming
from pcocc_runtime.documents.boot import BOOT_FILE
from pcocc_runtime.documents.checkpoint import (
    BOOT_COPY,
    DISK,
    END_IT,
    FAR,
    GO_ON,
    HOLD_IT,
    KEEP_IT,
    MEMORY,
    PAUSED,
    STAY,
    STORE,
    STORED,
    SUMMED,
    VARIABLES,
    SeenFile,
    StoredFile,
    TaskWord,
    VmCheckpoint,
    encode_task_word,
    encode_vm_checkpoint,
    is_hosts_cpu,
    plan_words,
)
from pcocc_runtime.documents.command_line import COMMAND_FILE, MAX_COMMAND, decode_command_line
from pcocc_runtime.documents.disks import DISKS_FILE, MAX_DISKS, DiskFacts, decode_disks
from pcocc_runtime.documents.hardware import TOPOLOGY_FILE, decode_topology
from pcocc_runtime.documents.login import FORMER_KEY_FILE
from pcocc_runtime.documents.node import MAX_NODE, BridgedFacts, decode_node
from pcocc_runtime.documents.save import GOES_ON, PAUSE_SOCKET, SAVE_SOCKET, STAYS, decode_pause
from pcocc_runtime.documents.vm_state import STATE_FILE, decode_state
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.images.second_layer import open_second_layer, put_second_layer
from pcocc_runtime.progress import Advance, unwatched
from pcocc_runtime.qemu.hot_drives import find_attached
from pcocc_runtime.qemu.hot_names import is_directory
from pcocc_runtime.qemu.memory_file import has_mapped_memory, plan_capabilities, plan_target, plan_writing
from pcocc_runtime.steps.plugging import list_devices
from pcocc_runtime.steps.qemu import Monitor, QemuGone
from pcocc_runtime.system import files, hardware, regular
from pcocc_runtime.system.copy import copy_extents, hash_file
from pcocc_runtime.system.saver_connection import SaverConnection

_UNHARMED = "the VMs go on, and an older checkpoint is unchanged"
_NO_KEEPER = "it runs on until its job ends, but cannot be stored or saved any more"
_PAUSE_SECONDS = 60.0
_GO_ON_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_LONGEST_WORD = 64  # bytes of a line that tells us what to do
_TELL_SECONDS = 1.0  # between two words about how far it is
_HINDRANCES = {"vfio-pci": "a device of its node", "vhost-user-fs-pci": "a directory over virtiofs"}


def check_words(words: Sequence[str]) -> Path:
    """Return the directory where the checkpoint is made."""
    if len(words) != 1 or not words[0].startswith("/"):
        raise RequestError("@checkpoint takes the absolute path of a directory", "'pcocc checkpoint DIR' runs it")
    return Path(words[0])


def operate(job: int, vm: str, place: Path) -> int:
    """Store the VM, which runs on this node, in a directory that exists already."""
    with Monitor(job, vm) as monitor, contextlib.ExitStack() as layers, contextlib.ExitStack() as still:
        directory = Path(monitor.directory)
        disks = decode_disks(regular.read_start(directory / DISKS_FILE, MAX_DISKS), vm)
        argv = decode_command_line(regular.read_start(directory / COMMAND_FILE, MAX_COMMAND), vm)
        _ensure_storable(job, monitor, argv)
        keeper = still.enter_context(_paused(monitor))
        # its end has the second layer merged, which a VM that stands still cannot do
        saver = layers.enter_context(SaverConnection(str(directory / SAVE_SOCKET), vm))
        _say(PAUSED, vm)
        _await(STORE)
        layer = _put_layer(saver, disks)
        with _writing(place, vm):
            record, found = _store(job, monitor, disks, argv, place)
        _say(STORED, vm)
        if _await(GO_ON, STAY) == GO_ON:
            still.close()
        with _writing(place, vm):
            if layer is not None:
                found[DISK] = place / f"{vm}.{DISK}"
                _copy(layer, found[DISK], _meter(vm))
            record = replace(record, files={kind: _sum(path, vm) for kind, path in found.items()})
            files.replace_file(place / f"{vm}.json", encode_vm_checkpoint(record))
        _say(SUMMED, vm)
        told = _await(KEEP_IT, END_IT, HOLD_IT)
        if told == HOLD_IT:
            told = _hold(keeper)
        if told == END_IT:
            _end(monitor)
    return 0


def _hold(keeper: socket.socket) -> str:
    """Have the VM stand still until we are told more; return what its end leaves to us when its keeper is gone."""
    with contextlib.suppress(OSError):
        keeper.sendall(STAYS)
    if _await(KEEP_IT, at_end=END_IT) == END_IT:
        return END_IT if _is_gone(keeper) else KEEP_IT
    with contextlib.suppress(OSError):
        keeper.sendall(GOES_ON)
    return KEEP_IT


def _ensure_storable(job: int, monitor: Monitor, argv: Sequence[str]) -> None:
    """Raise RequestError if the VM has something with which it cannot be stored."""
    vm, directory = monitor.vm, Path(monitor.directory)
    if Path(directory, FORMER_KEY_FILE).exists() and not _is_silent(directory):
        hint = "wait until it answers; 'pcocc ps -l' says so, and the job's output when it could not take them"
        raise RequestError(f"{vm} has not taken the ssh keys of this job yet, and would be stored with others", hint)
    what = next((what for word, what in _HINDRANCES.items() if any(one.startswith(word) for one in argv)), None)
    if what:
        raise RequestError(f"{vm} has {what}, and cannot be stored with it", "boot the job without it")
    for given in find_attached(monitor.command("query-fdsets"), monitor.command("query-block")):
        raise RequestError(
            f"{vm} cannot be stored with {given.name}, which it was given while it runs",
            f"'pcocc disk detach {vm} {given.name}' first",
        )
    if any(map(is_directory, list_devices(monitor))):
        raise RequestError(
            f"{vm} cannot be stored with a directory that it was given while it runs",
            f"'pcocc umount {vm} TAG' first; 'pcocc mount list {vm}' shows the tags",
        )
    node = decode_node(regular.read_start(naming.job_dir(job) / naming.NODE_FILE, MAX_NODE + 1), job)
    for one in node.networks:
        if isinstance(one, BridgedFacts) and int(vm[2:]) in one.ranks:
            raise RequestError(
                f"{vm} cannot be stored: on the site's network {one.name!r} its MAC address belongs to this job alone",
                "boot the job with a template that has private networks only",
            )
    for reason in monitor.command("query-migrate").get("blocked-reasons", ()):
        hint = "unmount such a directory in the guest" if "VirtFS" in reason else "boot the job without it"
        if "invtsc" in reason:
            hint = "boot the job with 'bind-vcpus: false' in its template"
        raise RequestError(f"{vm} cannot be stored: {reason}", hint)


@contextlib.contextmanager
def _paused(monitor: Monitor) -> Iterator[socket.socket]:
    """Make the VM stand still during the block, and yield its keeper.

    The keeper lets the VM go on afterwards, even if this process is killed. If the keeper itself is killed
    meanwhile, we do that.
    """
    vm = monitor.vm
    with socket.socket(socket.AF_UNIX) as keeper:
        try:
            keeper.settimeout(_PAUSE_SECONDS)
            keeper.connect(f"{monitor.directory}/{PAUSE_SOCKET}")
            answer = keeper.recv(4096)
            state = decode_pause(answer).state if answer else None
        except TimeoutError:
            raise NodeError(f"the QEMU of {vm} does not answer") from None
        except (OSError, ValueError):
            # what is said of a VM that has ended itself is known elsewhere (fate.py)
            raise NodeError(f"the keeper of {vm} has ended, so {vm} cannot be stored", _NO_KEEPER) from None
        if not answer:
            raise RequestError(f"{vm} is being stored already", "wait until the other checkpoint has been made")
        if state is not None:
            raise RequestError(f"{vm} does not run: it is {state}", "a checkpoint can be made of VMs that run")
        try:
            yield keeper
        finally:
            if _is_gone(keeper):
                _let_go_on(monitor)


def _is_gone(keeper: socket.socket) -> bool:
    """Tell whether the keeper, which says nothing more, has ended."""
    keeper.settimeout(0)
    try:
        return keeper.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _let_go_on(monitor: Monitor) -> None:
    """Have QEMU let its guest go on, as the keeper would; one that still stores memory needs more than one word."""
    deadline = time.monotonic() + _GO_ON_SECONDS
    with contextlib.suppress(QemuGone):
        while time.monotonic() < deadline:
            for command in ("migrate_cancel", "cont"):
                with contextlib.suppress(NodeError):
                    monitor.command(command)
            if monitor.command("query-status").get("running"):
                return
            time.sleep(_LOOK_SECONDS)  # nothing announces when QEMU can


def _is_silent(directory: Path) -> bool:
    """Tell whether nobody waits for the guest any more."""
    try:
        return decode_state(Path(directory, STATE_FILE).read_text()).state == "silent"
    except (OSError, ValueError):
        return False


def _say(word: str, vm: str, done: int = 0, total: int = 0) -> None:
    os.write(1, encode_task_word(TaskWord(word, vm, done, total)))


def _await(*words: str, at_end: str = "") -> str:
    """Return which of the words is the next line of our input; if that ends, `at_end`, or else NodeError."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST_WORD:
        piece = os.read(0, 1)  # not more than this line: the next one is for whoever reads next
        if not piece and at_end:
            return at_end
        if not piece:
            raise NodeError("the checkpoint was interrupted", _UNHARMED)
        line += piece
    word = line.decode(errors="replace").strip()
    if word not in words:
        raise RequestError(f"@checkpoint does not wait for {word[:40]!r}", "use 'pcocc checkpoint', which runs it")
    return word


def _store(
    job: int, monitor: Monitor, disks: DiskFacts, argv: Sequence[str], place: Path
) -> tuple[VmCheckpoint, dict[str, Path]]:
    """Store everything that would change once the VM goes on.

    Return the VM's record, still without its files, and the paths of those files by their kind.
    """
    vm, words = monitor.vm, plan_words(argv)
    told = monitor.command("query-version")["qemu"]
    version = (int(told["major"]), int(told["minor"]))
    found = {MEMORY: place / f"{vm}.{MEMORY}"}
    _store_memory(monitor, found[MEMORY], has_mapped_memory(version))
    variables = Path(disks.scratch, f"{vm}.vars.fd")
    if variables.exists():
        found[VARIABLES] = place / f"{vm}.{VARIABLES}"
        _copy(variables, found[VARIABLES], unwatched)
    if vm == "vm0":
        shutil.copyfile(naming.job_dir(job) / BOOT_FILE, place / BOOT_COPY)
    record = VmCheckpoint(
        rank=int(vm[2:]),
        job=job,
        uuid=argv[argv.index("-uuid") + 1],
        qemu=".".join(map(str, version)),
        accel=argv[argv.index("-accel") + 1].partition(",")[0],
        cpu=hardware.read_cpu_name() if is_hosts_cpu(words) else "",
        topology=decode_topology(Path(monitor.directory, TOPOLOGY_FILE).read_bytes()).guest,
        words=words,
        files={},
        image=_see(Path(disks.image)) if disks.image else None,
        origin=disks.origin,
        drives=tuple(_see(Path(one.path)) for one in disks.disks if one.mmp is not None),
    )
    return record, found


def _see(path: Path) -> SeenFile:
    status = path.stat()
    return SeenFile(str(path), status.st_size, status.st_mtime_ns)


def _store_memory(monitor: Monitor, path: Path, mapped: bool) -> None:
    """Have QEMU write memory and devices. Before it is done, it writes its disks out and releases them."""
    parameters, take, arguments = plan_writing(mapped)
    monitor.command("migrate-set-capabilities", plan_capabilities(mapped))
    monitor.command("migrate-set-parameters", parameters)
    # write-only, because QEMU refuses a descriptor whose access mode is not the one that it needs
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        taken = monitor.say({"execute": take, "arguments": arguments}, fd=fd)
    finally:
        os.close(fd)
    try:
        monitor.command("migrate", {"uri": plan_target(taken)})
        _follow(monitor)
    finally:
        if taken:
            monitor.command("remove-fd", taken)


def _follow(monitor: Monitor) -> None:
    """Wait until QEMU has written everything; NodeError if it cannot."""
    advance = _meter(monitor.vm)
    while (state := monitor.command("query-migrate")).get("status") != "completed":
        if state.get("status") in ("failed", "cancelled", "cancelling"):
            why = state.get("error-desc") or "QEMU could not write it"
            raise NodeError(f"the memory of {monitor.vm} could not be stored: {why}", f"is DIR full? {_UNHARMED}")
        memory = state.get("ram", {})
        advance(int(memory.get("total", 0)) - int(memory.get("remaining", 0)), int(memory.get("total", 0)))
        with contextlib.suppress(TimeoutError):
            monitor.next(_LOOK_SECONDS)


def _meter(vm: str) -> Advance:
    """Return a function that says how far the VM's task is; not too often, as one srun carries what all tasks say."""
    told = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            _say(FAR, vm, done, total)

    return advance


@contextlib.contextmanager
def _writing(place: Path, vm: str) -> Iterator[None]:
    """Report a file system's error in the block as one of the checkpoint's directory."""
    try:
        yield
    except OSError as error:
        why = f"{vm} could not be stored in {place.parent}: {error.strerror}"
        raise NodeError(why, f"see 'df {place.parent}'; {_UNHARMED}") from None


def _put_layer(saver: SaverConnection, disks: DiskFacts) -> Path | None:
    """Put a second layer upon the VM's own, which does not change any more then; return the first, None for no disk."""
    index = next((index for index, one in enumerate(disks.disks) if one.mmp is None), None)
    if index is None:
        return None
    layer = Path(disks.disks[index].path)
    try:
        put_second_layer(saver, open_second_layer(saver, layer, index))
    except OSError as error:
        raise NodeError(
            f"{saver.vm} cannot be stored without some room in the job's scratch directory {disks.scratch}:"
            f" {error.strerror}", f"see 'df {disks.scratch}' on the VM's node, and free some there",
        ) from None
    return layer


def _copy(source: Path, target: Path, advance: Advance) -> None:
    with regular.open_regular(source) as stream:
        fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(stream.fileno()).st_size
            os.ftruncate(fd, size)
            for far in copy_extents(stream.fileno(), fd, 0, size):
                advance(far, size)
        finally:
            os.close(fd)


def _sum(path: Path, vm: str) -> StoredFile:
    """Wait until a file is on disk, and return its size and sum."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
        size = os.fstat(stream.fileno()).st_size
    return StoredFile(path.name, size, hash_file(path, _meter(vm)))


def _end(monitor: Monitor) -> None:
    """End QEMU, and wait until it is gone."""
    with contextlib.suppress(QemuGone, TimeoutError):
        monitor.command("quit")
        while True:
            monitor.next(_PAUSE_SECONDS)

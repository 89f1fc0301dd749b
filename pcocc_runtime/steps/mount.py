"""The operation `@mount`: directories of the host that a running VM is given, and gives back.

A virtiofsd serves each of them, started by the VM's keeper with the confinement of those that a VM has since its boot.
It ends with QEMU's connection to it. What an operation that was killed has left in QEMU is removed by the next one, and
by the keeper when a guest releases a directory that nobody waits for any more.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pcocc_runtime.documents.cluster import Mount
from pcocc_runtime.documents.directory import (
    DIRECTORY_SOCKET,
    DirectoryRequest,
    decode_directory_answer,
    encode_directory_request,
)
from pcocc_runtime.documents.disks import DISKS_FILE, MAX_DISKS, decode_disks
from pcocc_runtime.documents.vm_state import STATE_FILE, VmState, decode_state
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.guest.directories import (
    DONE_THERE,
    NO_ROOT,
    NO_VIRTIOFS,
    OCCUPIED,
    render_command_to_type,
    render_mounting,
    render_unmounting,
)
from pcocc_runtime.guest.seed import MOUNT_DIR
from pcocc_runtime.qemu.hot_directories import (
    GivenDirectory,
    ensure_tag,
    find_booted,
    find_directories,
    next_directory,
    parse_directory,
    plan_channel,
    plan_directory_device,
    plan_directory_set,
)
from pcocc_runtime.steps.host_path import ensure_path_allowed
from pcocc_runtime.steps.in_guest import CannotEnter, run_in_guest
from pcocc_runtime.steps.plugging import (
    close,
    ensure_running,
    find_bus,
    list_devices,
    read_command_line,
    take_seconds,
    uninterrupted,
    unplug,
)
from pcocc_runtime.steps.qemu import Monitor, QemuGone
from pcocc_runtime.system import regular, user_files

_ADD, _REMOVE, _LIST = "add", "remove", "list"
_NOW = "--now"
_FILE = "pcocc-directory"  # QEMU's name of a connection until it has a use
_START_SECONDS = 60.0
_GUEST_SECONDS = 60.0
_BACK_SECONDS = 10.0  # for a guest to release what it could not mount


class MountWish(NamedTuple):
    """What to do: directories to give, or tags of those to take back, each within so many seconds, `now` unasked."""

    deed: str
    mounts: tuple[Mount, ...] = ()
    tags: tuple[str, ...] = ()
    seconds: int = 0
    now: bool = False


def check_words(words: Sequence[str]) -> MountWish:
    """Return what is wanted: `add TAG=PATH...`, `remove [--time=SECONDS] [--now] TAG...` or `list`."""
    deed, more = (words[0] if words else ""), list(words[1:])
    if deed == _LIST and not more:
        return MountWish(_LIST)
    if deed == _ADD and more:
        mounts = tuple(map(parse_directory, more))
        for mount in mounts:
            if not mount.path.startswith("/"):
                raise RequestError(f"{mount.path!r} is not an absolute path", "'pcocc mount' makes it one")
        tags = [mount.tag for mount in mounts]
        if twice := next((tag for tag in tags if tags.count(tag) > 1), None):
            raise RequestError(f"the tag {twice!r} is given twice", "name each directory differently")
        return MountWish(_ADD, mounts)
    if deed == _REMOVE:
        seconds = take_seconds(more)
        now = more[:1] == [_NOW]
        if more[now:]:
            return MountWish(_REMOVE, tags=tuple(map(ensure_tag, more[now:])), seconds=seconds, now=now)
    raise RequestError("@mount takes add, remove or list", "this is what 'pcocc mount' and 'pcocc umount' run")


def operate(job: int, vm: str, wish: MountWish) -> int:
    """Do it, and write a line for each directory."""
    if wish.deed == _LIST:
        with _meet(job, vm) as monitor:
            _list(monitor)
    for mount in wish.mounts:
        _add(job, vm, replace(mount, path=mount.path.replace("%v", vm)))
    for tag in wish.tags:
        _remove(job, vm, tag, wish)
    return 0


def read_given(monitor: Monitor) -> tuple[GivenDirectory, ...]:
    """Return the directories that the VM was given while it runs."""
    sets, chardevs = monitor.command("query-fdsets"), monitor.command("query-chardev")
    return find_directories(sets, chardevs, list_devices(monitor))


def _meet(job: int, vm: str) -> Monitor:
    """Return a connection to the VM's monitor, with everything removed that a killed operation has left in QEMU."""
    monitor = Monitor(job, vm)
    try:
        with contextlib.suppress(NodeError):  # QEMU has none of this name, mostly
            monitor.command("closefd", {"fdname": _FILE})
        for one in read_given(monitor):
            if not one.has_device:
                close(monitor, one.name)
    except BaseException:  # a signal, too: nobody else would close it
        monitor.close()
        raise
    return monitor


def _list(monitor: Monitor) -> None:
    for tag, kind in find_booted(read_command_line(monitor)).items():
        sys.stdout.write(f"{monitor.vm}: {tag} is given over {kind}, since its boot\n")
    for one in read_given(monitor):
        tag = _tag_of(monitor, one)
        known = f"{one.mount.path}{_access(one.mount)}" if one.mount else "a directory that is not known any more"
        sys.stdout.write(f"{monitor.vm}: {tag} is {known}, given while it runs\n")


def _access(mount: Mount) -> str:
    return ", read-only" if mount.readonly else ""


def _tag_of(monitor: Monitor, given: GivenDirectory) -> str:
    """Return the tag; the device knows it even where the set of descriptors went with the VM's keeper."""
    if given.mount:
        return given.mount.tag
    return str(monitor.command("qom-get", {"path": f"/machine/peripheral/{given.name}", "property": "tag"}))


def _add(job: int, vm: str, mount: Mount) -> None:
    with _meet(job, vm) as monitor:
        state = _ensure_takes(monitor, mount)
        bus = find_bus(monitor)
        with uninterrupted():
            name = _give(monitor, mount, bus)
    try:
        why = _mount(vm, mount, state)
    except BaseException:  # a signal, too: it is all done or nothing is
        _take_back(job, vm, name, mount.tag)
        raise
    what = f"{mount.path}{_access(mount)}"
    if why:
        typed = render_command_to_type(mount)
        sys.stdout.write(f"{vm}: {mount.tag} is {what}; type in the guest, as root: {typed} ({why})\n")
    else:
        sys.stdout.write(f"{vm}: {MOUNT_DIR}/{mount.tag} is {what}\n")


def _ensure_takes(monitor: Monitor, mount: Mount) -> VmState:
    """Return the VM's state; raise unless the VM can be given the directory."""
    vm, state = monitor.vm, _read_state(monitor)
    ensure_running(monitor, "mount a directory")
    given = {_tag_of(monitor, one) for one in read_given(monitor)}
    if mount.tag in {*find_booted(read_command_line(monitor)), *given}:
        raise RequestError(f"{vm} has a directory {mount.tag!r} already", f"'pcocc mount list {vm}' lists them")
    ensure_path_allowed(mount.path, "directory")
    user_files.ensure_directory_readable(mount.path, "directory")
    if not all(one.get("share") for one in monitor.command("query-memdev")):
        raise RequestError(
            f"the memory of {vm} is not shared with other processes, which serve directories to running VMs",
            f"submit the job with a first directory: --pcocc-mount={mount.tag}={mount.path},type=virtiofs",
        )
    return state


def _read_state(monitor: Monitor) -> VmState:
    try:
        return decode_state(Path(monitor.directory, STATE_FILE).read_text())
    except FileNotFoundError:
        raise NodeError(
            f"the guest of {monitor.vm} is still booting", "try again when 'pcocc ps -l' says that it is up"
        ) from None
    except ValueError as error:
        raise NodeError(str(error), "check that all nodes have the same version of pcocc") from None


def _give(monitor: Monitor, mount: Mount, bus: str) -> str:
    """Have QEMU give the directory to its guest, and return QEMU's name of it; it is all done or nothing is."""
    name = next_directory(read_given(monitor))
    with socket.socket(fileno=_start_server(monitor, mount)) as server:
        monitor.send_file(_FILE, server.fileno())
    try:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            monitor.say({"execute": "add-fd", "arguments": plan_directory_set(name, mount)}, fd=null)
        finally:
            os.close(null)
        monitor.command("chardev-add", plan_channel(name, _FILE))
        monitor.command("device_add", plan_directory_device(name, mount.tag, bus))
    except NodeError as error:
        if not isinstance(error, QemuGone):
            with contextlib.suppress(NodeError):  # the connection may have been taken by then
                monitor.command("closefd", {"fdname": _FILE})
            close(monitor, name)
        raise
    return name


def _start_server(monitor: Monitor, mount: Mount) -> int:
    """Return a connection to a virtiofsd that the VM's keeper has had started."""
    vm, directory = monitor.vm, monitor.directory
    scratch = decode_disks(regular.read_start(Path(directory, DISKS_FILE), MAX_DISKS), vm).scratch
    log = f"{scratch}/{vm}.virtiofs.log"
    request = DirectoryRequest(mount.path, mount.readonly, f"{directory}/virtiofs-{mount.tag}", log)
    try:
        with socket.socket(socket.AF_UNIX) as keeper:
            keeper.settimeout(_START_SECONDS)
            keeper.connect(f"{directory}/{DIRECTORY_SOCKET}")
            keeper.sendall(encode_directory_request(request))
            data, files, _flags, _address = socket.recv_fds(keeper, 1 << 16, 1)
    except TimeoutError:
        raise NodeError(f"virtiofsd has not started within {_START_SECONDS:g} s on the node of {vm}") from None
    except (ConnectionResetError, BrokenPipeError):
        data, files = b"", []
    except OSError as error:
        raise NodeError(f"the keeper of {vm} does not answer: {error.strerror}", "start a new job") from None
    if not data:
        raise NodeError(f"the keeper of {vm} could not start what serves directories", "see 'pcocc node check'")
    try:
        answer = decode_directory_answer(data)
    except ValueError as error:
        raise NodeError(str(error), "check that all nodes have the same version of pcocc") from None
    if not files:
        raise NodeError(answer.error, answer.hint or None)
    return files[0]


def _mount(vm: str, mount: Mount, state: VmState) -> str:
    """Have the guest mount it; return why its guest could not be told, empty if it was."""
    if state.state != "up":
        return f"the guest of {vm} does not answer"
    try:
        said = run_in_guest(vm, render_mounting(mount), _GUEST_SECONDS)
    except CannotEnter as error:
        return error.message
    if said.status == NO_ROOT:
        return "its user may not use sudo there"
    if said.status == OCCUPIED:
        raise RequestError(f"{MOUNT_DIR}/{mount.tag} in the guest of {vm} has a file system already", "use another tag")
    if said.status == NO_VIRTIOFS:
        raise NodeError(f"the kernel of the guest of {vm} has no virtiofs", "use an image that has it")
    if said.status != DONE_THERE:
        why = said.line or "it does not find the new device"
        raise NodeError(f"the guest of {vm} cannot mount {mount.tag}: {why}", "see 'dmesg' in the guest")
    return ""


def _take_back(job: int, vm: str, name: str, tag: str) -> None:
    """Take away what the guest could not mount, if it releases it soon."""
    with contextlib.suppress(PcoccError), Monitor(job, vm) as monitor:
        unplug(monitor, name, f"the directory {tag}", _BACK_SECONDS)
        close(monitor, name)


def _remove(job: int, vm: str, tag: str, wish: MountWish) -> None:
    with _meet(job, vm) as monitor:
        given = _find(monitor, tag)
        ensure_running(monitor, "release a directory")
    if not wish.now:
        _unmount(vm, tag)
    with Monitor(job, vm) as monitor:
        unplug(monitor, given.name, f"the directory {tag}", wish.seconds)
        close(monitor, given.name)
    sys.stdout.write(f"{vm}: {tag} is taken back\n")


def _find(monitor: Monitor, tag: str) -> GivenDirectory:
    given = {_tag_of(monitor, one): one for one in read_given(monitor)}
    if tag not in given:
        known = ", ".join(given)
        hint = f"it was given {known}" if known else "only what 'pcocc mount' has given it can be taken back"
        raise RequestError(f"{monitor.vm} was not given a directory {tag!r} while it runs", hint)
    return given[tag]


def _unmount(vm: str, tag: str) -> None:
    hint = f"unmount it in the guest, as root, and then 'pcocc umount --now {vm} {tag}'"
    try:
        said = run_in_guest(vm, render_unmounting(tag), _GUEST_SECONDS)
    except CannotEnter as error:
        raise NodeError(f"{error.message}, so it could not unmount {tag}", hint) from None
    if said.status == NO_ROOT:
        raise NodeError(f"the guest of {vm} has mounted {tag}, and its user may not use sudo there", hint)
    if said.status != DONE_THERE:
        hint = f"'fuser -vm {MOUNT_DIR}/{tag}' there shows who uses it"
        raise NodeError(f"the guest of {vm} cannot unmount {tag}: {said.line}", hint)

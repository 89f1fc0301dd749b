"""The operation `@disk`: persistent drives that a running VM is given, and gives back.

The drive's lock lies on the open file that QEMU gets, and so ends with QEMU's use of it, whatever becomes of this
process. What one that was killed has left in QEMU is removed by the next one, and by the VM's keeper when a guest
releases a drive that nobody waits for any more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pcocc_runtime.documents.cluster import Drive
from pcocc_runtime.documents.disks import DISKS_FILE, MAX_DISKS, DiskFacts, decode_disks
from pcocc_runtime.documents.vm import DRIVES_FILE
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.images.drives import ensure_drive
from pcocc_runtime.qemu.hot_drives import (
    Attached,
    find_attached,
    next_name,
    parse_drive,
    plan_device,
    plan_node,
    plan_set,
    render_drive,
)
from pcocc_runtime.steps.host_path import ensure_path_allowed
from pcocc_runtime.steps.plugging import (
    close,
    ensure_running,
    find_bus,
    read_command_line,
    take_seconds,
    uninterrupted,
    unplug,
)
from pcocc_runtime.steps.qemu import Monitor, QemuGone
from pcocc_runtime.system import drive_locks, files, regular

_ATTACH, _DETACH, _LIST = "attach", "detach", "list"


class DiskWish(NamedTuple):
    """What to do: drives to attach, names or paths to detach, and the seconds that the guest has for each of these."""

    deed: str
    drives: tuple[Drive, ...] = ()
    names: tuple[str, ...] = ()
    seconds: int = 0


def check_words(words: Sequence[str]) -> DiskWish:
    """Return what is wanted: `attach DRIVE...`, `detach [--time=SECONDS] NAME...` or `list`."""
    deed, more = (words[0] if words else ""), list(words[1:])
    if deed == _LIST and not more:
        return DiskWish(_LIST)
    if deed == _ATTACH and more:
        drives = tuple(map(parse_drive, more))
        for drive in drives:
            if not drive.path.startswith("/"):
                raise RequestError(f"{drive.path!r} is not an absolute path", "'pcocc disk attach' makes it one")
        return DiskWish(_ATTACH, drives)
    seconds = take_seconds(more) if deed == _DETACH else 0
    if deed == _DETACH and more:
        return DiskWish(_DETACH, names=tuple(more), seconds=seconds)
    raise RequestError("@disk takes attach, detach or list", "this is what 'pcocc disk' runs")


def operate(job: int, vm: str, wish: DiskWish) -> int:
    """Do it, and write a line for each drive."""
    with Monitor(job, vm) as monitor:
        _heal(monitor)
        if wish.deed == _LIST:
            _list(monitor)
        for drive in wish.drives:
            named = drive_of(drive, vm)
            with uninterrupted():
                name = _attach(monitor, job, named)
            sys.stdout.write(f"{vm}: {name} is {named.path}\n")
        for name in wish.names:
            found = _find(monitor, name.replace("%v", vm))
            _detach(monitor, found, wish.seconds)
            sys.stdout.write(f"{vm}: {found.name} is detached\n")
    return 0


def drive_of(drive: Drive, vm: str) -> Drive:
    """Return the drive of one VM: `%v` in its path is the VM's name."""
    return parse_drive(render_drive(drive).replace("%v", vm))


def read_attached(monitor: Monitor) -> tuple[Attached, ...]:
    """Return the drives that the VM was given while it runs."""
    return find_attached(monitor.command("query-fdsets"), monitor.command("query-block"))


def _read_disks(monitor: Monitor) -> DiskFacts:
    return decode_disks(regular.read_start(Path(monitor.directory, DISKS_FILE), MAX_DISKS), monitor.vm)


def _list(monitor: Monitor) -> None:
    facts = _read_disks(monitor)
    for number, one in enumerate(facts.disks):
        sys.stdout.write(f"{monitor.vm}: disk{number} is {one.path}, since its boot\n")
    for drive in read_attached(monitor):
        sys.stdout.write(f"{monitor.vm}: {drive.name} is {drive.path}, attached\n")


def _heal(monitor: Monitor) -> None:
    """Remove what an operation that was killed has left: a drive without a device, which its guest cannot see."""
    for one in read_attached(monitor):
        if not one.has_device:
            close(monitor, one.name)


def _attach(monitor: Monitor, job: int, drive: Drive) -> str:
    """Attach a drive, and return its name; it is all done or nothing is."""
    ensure_path_allowed(drive.path, "drive")
    ensure_drive(drive)
    attached, facts = read_attached(monitor), _read_disks(monitor)
    real = os.path.realpath(drive.path)
    for known in (*(one.path for one in facts.disks), *(one.path for one in attached)):
        if os.path.realpath(known) == real:
            raise RequestError(f"{monitor.vm} has the drive {drive.path} already", "'pcocc disk list' lists its drives")
    name, bus = next_name(len(facts.disks), attached), _find_bus(monitor)
    fd = _lock(drive, job)
    try:
        files.replace_file(Path(monitor.directory, DRIVES_FILE), b"")
        monitor.say({"execute": "add-fd", "arguments": plan_set(name, drive.path)}, fd=fd)
    finally:
        os.close(fd)
    try:
        monitor.command("blockdev-add", plan_node(name, drive))
        monitor.command("device_add", plan_device(name, drive, bus))
    except NodeError as error:
        if not isinstance(error, QemuGone):
            close(monitor, name)
        raise
    return name


def _lock(drive: Drive, job: int) -> int:
    """Return the drive's open file, locked as a drive of a VM that boots."""
    fd = drive_locks.lock_drive(drive.path, drive.mmp, job)
    if fd is not None:
        return fd
    try:
        return os.open(drive.path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise RequestError(f"the drive {drive.path} cannot be written here: {error.strerror}") from None


def _find_bus(monitor: Monitor) -> str:
    words = read_command_line(monitor)
    if any(word.startswith("virtio-scsi-pci,id=scsi,") for word in words):
        return "scsi.0"
    if any(word.startswith("ide-hd,") for word in words):
        raise RequestError(
            f"{monitor.vm} has IDE disks, and can get no other while it runs",
            "'disk-model: virtio' or virtio-scsi in its template lets it",
        )
    return find_bus(monitor)


def _find(monitor: Monitor, name: str) -> Attached:
    attached = read_attached(monitor)
    for one in attached:
        if name == one.name or os.path.realpath(name) == os.path.realpath(one.path):
            return one
    known = ", ".join(one.name for one in attached)
    hint = f"it was given {known}" if known else "only drives that 'pcocc disk attach' has given it can be detached"
    raise RequestError(f"{monitor.vm} was not given a drive {name[:200]!r} while it runs", hint)


def _detach(monitor: Monitor, drive: Attached, seconds: float) -> None:
    ensure_running(monitor, "release a drive")
    unplug(monitor, drive.name, drive.name, seconds)
    close(monitor, drive.name)
    if not read_attached(monitor):
        Path(monitor.directory, DRIVES_FILE).unlink(missing_ok=True)

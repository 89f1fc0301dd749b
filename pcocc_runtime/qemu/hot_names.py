"""Names of what running VMs are given, and what QEMU closes when a guest has released a device. Keepers import it."""

from __future__ import annotations

from pcocc_runtime.documents.record import TYPE_CHECKING

if TYPE_CHECKING:
    from pcocc_runtime.qemu.qmp import Message

_DRIVE, _DIRECTORY = "disk", "dir"
_SETS = 1000  # the number of disk0's set of descriptors: QEMU counts the others from 0
_DIRECTORY_SETS = 20000  # of dir0


def is_drive(name: str) -> bool:
    """Tell whether a name can be that of an attached drive."""
    return _is_numbered(name, _DRIVE)


def is_directory(name: str) -> bool:
    """Tell whether a name can be that of a directory that a VM was given while it runs."""
    return _is_numbered(name, _DIRECTORY)


def _is_numbered(name: str, kind: str) -> bool:
    number = name.removeprefix(kind)
    return name != number and number.isascii() and number.isdigit() and len(number) < 5


def set_of(drive: str) -> int:
    """Return the number of a drive's set of descriptors."""
    return _SETS + int(drive.removeprefix(_DRIVE))


def set_of_directory(name: str) -> int:
    """Return the number of a directory's set of descriptors."""
    return _DIRECTORY_SETS + int(name.removeprefix(_DIRECTORY))


def drive_of_set(number: int) -> str:
    """Return the name of the drive with this set of descriptors."""
    return f"{_DRIVE}{number - _SETS}"


def plan_release(device: str) -> list[tuple[str, Message]]:
    """Return the commands by which QEMU closes what a device has used; it refuses those that were done already."""
    if is_drive(device):
        return [("blockdev-del", {"node-name": device}), ("remove-fd", {"fdset-id": set_of(device)})]
    if is_directory(device):
        return [("chardev-remove", {"id": device}), ("remove-fd", {"fdset-id": set_of_directory(device)})]
    return []

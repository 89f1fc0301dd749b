"""How a QEMU writes a stopped guest's memory and devices into a file, and reads them again (docs/devel/migration).

From 9.0 on each page has its place in the file, which several threads write at once (mapped-ram); zeros are holes.
Before, it is one stream; `fd:` takes a file for that, which 11 refuses.
"""

from __future__ import annotations

from pcocc_runtime.documents.record import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_MAPS = (9, 0)
_READ_SET = 2  # the number that the file has among QEMU's own descriptors, beside KVM's
_THREADS = 4
_NAME = "checkpoint"
_FAST = {"max-bandwidth": 1 << 50}  # bytes a second: its own bound is meant for networks


def has_mapped_memory(version: tuple[int, ...]) -> bool:
    """Tell whether a QEMU of this version does."""
    return version >= _MAPS


def plan_capabilities(mapped: bool) -> dict[str, Any]:
    """Return the arguments of migrate-set-capabilities, for who writes and who reads."""
    names = ("events", "mapped-ram", "multifd") if mapped else ("events",)
    return {"capabilities": [{"capability": name, "state": True} for name in names]}


def plan_writing(mapped: bool) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return the arguments of migrate-set-parameters, and the command that takes the open file, with its arguments."""
    if mapped:
        return {**_FAST, "multifd-channels": _THREADS}, "add-fd", {}
    return _FAST, "getfd", {"fdname": _NAME}


def plan_target(answer: dict[str, Any]) -> str:
    """Return what QEMU calls the file that it has taken, for `migrate`; `answer` is that of the command."""
    return f"file:/dev/fdset/{answer['fdset-id']}" if answer else f"fd:{_NAME}"


def plan_reading(fd: int, mapped: bool) -> tuple[tuple[str, ...], str]:
    """Return the options of a QEMU that inherits the file and waits, and what it calls it, for `migrate-incoming`."""
    handed = ("-add-fd", f"fd={fd},set={_READ_SET}") if mapped else ()
    return (*handed, "-incoming", "defer"), f"file:/dev/fdset/{_READ_SET}" if mapped else f"fd:{fd}"


def is_mapped_source(source: str) -> bool:
    """Tell of a word of `plan_reading` whether memory has been mapped there."""
    return source.startswith("file:")

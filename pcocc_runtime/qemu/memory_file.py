"""How a QEMU writes a stopped guest's memory and devices into a file, and reads them again (docs/devel/migration).

From QEMU 9.0 on, each page has its place in the file, several threads write it at once (mapped-ram), and zeros are
holes. Older ones write one stream: they take a file as `fd:`, which QEMU 11 refuses.
"""

from __future__ import annotations

from pcocc_runtime.documents.record import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_MAPS = (9, 0)
_READ_SET = 2  # the number that the file has among QEMU's own descriptors, beside KVM's
_THREADS = 4
_NAME = "checkpoint"
_FAST = {"max-bandwidth": 1 << 50}  # bytes a second: QEMU's default is meant for networks


def has_mapped_memory(version: tuple[int, ...]) -> bool:
    """Tell whether a QEMU of this version gives each page its place in the file."""
    return version >= _MAPS


def plan_capabilities(mapped: bool) -> dict[str, Any]:
    """Return the arguments of migrate-set-capabilities, for the writing and for the reading QEMU."""
    names = ("events", "mapped-ram", "multifd") if mapped else ("events",)
    return {"capabilities": [{"capability": name, "state": True} for name in names]}


def plan_writing(mapped: bool) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return the arguments of migrate-set-parameters, and the command that takes the open file, with its arguments."""
    if mapped:
        return {**_FAST, "multifd-channels": _THREADS}, "add-fd", {}
    return _FAST, "getfd", {"fdname": _NAME}


def plan_target(answer: dict[str, Any]) -> str:
    """Return QEMU's name, for `migrate`, of the file that it has taken; `answer` is what it said to that command."""
    return f"file:/dev/fdset/{answer['fdset-id']}" if answer else f"fd:{_NAME}"


def plan_reading(fd: int, mapped: bool) -> tuple[tuple[str, ...], str]:
    """Return the options of a QEMU that inherits the file and waits, and its name for it (`migrate-incoming`)."""
    handed = ("-add-fd", f"fd={fd},set={_READ_SET}") if mapped else ()
    return (*handed, "-incoming", "defer"), f"file:/dev/fdset/{_READ_SET}" if mapped else f"fd:{fd}"


def is_mapped_source(source: str) -> bool:
    """Tell whether each page has its place in the file that `plan_reading` gave this name."""
    return source.startswith("file:")

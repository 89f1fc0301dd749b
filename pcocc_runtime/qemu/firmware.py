"""Which of a node's firmware gives a machine UEFI (QEMU: docs/interop/firmware.json)."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from pcocc_runtime.qemu.descriptors import UefiFirmware
from pcocc_runtime.qemu.disks import machine_kind

# QEMU's short names; patterns have the machines' full names, with versions
_FAMILIES = {"q35": "pc-q35-", "pc": "pc-i440fx-"}


def choose_uefi(every: Iterable[UefiFirmware], machine: str) -> UefiFirmware | None:
    """Return the first firmware for a machine, None when there is none."""
    kind = machine_kind(machine)
    name = _FAMILIES.get(kind, kind)
    fitting = (one for one in every if any(fnmatchcase(name, pattern) for pattern in one.machines))
    return next(fitting, None)

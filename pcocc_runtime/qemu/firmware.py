"""Which of a node's firmware descriptors gives a machine UEFI (QEMU: docs/interop/firmware.json)."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from pcocc_runtime.qemu.disks import machine_kind

# QEMU's aliases, for machines the patterns name with their version
_FAMILIES = {"q35": "pc-q35-", "pc": "pc-i440fx-"}
_UNWANTED = {"requires-smm", "enrolled-keys"}


def choose_uefi(descriptors: Iterable[dict[str, Any]], machine: str) -> tuple[str, str] | None:
    """Return the paths of code and empty variables of the first fitting firmware, None when there is none.

    Secure boot needs a machine with SMM and keys that most guests were not signed for: such firmware is passed over.
    """
    for one in descriptors:
        try:
            if _fits(one, machine):
                return one["mapping"]["executable"]["filename"], one["mapping"]["nvram-template"]["filename"]
        except (KeyError, TypeError):
            continue
    return None


def _fits(one: dict[str, Any], machine: str) -> bool:
    mapping = one["mapping"]
    if (
        "uefi" not in one["interface-types"]
        or mapping["device"] != "flash"
        or mapping.get("mode", "split") != "split"
    ):
        return False
    if _UNWANTED & set(one["features"]):
        return False
    if {mapping["executable"]["format"], mapping["nvram-template"]["format"]} != {"raw"}:
        return False
    kind = machine_kind(machine)
    name = _FAMILIES.get(kind, kind)
    return any(
        target["architecture"] == "x86_64"
        and any(fnmatchcase(name, pattern) for pattern in target["machines"])
        for target in one["targets"]
    )

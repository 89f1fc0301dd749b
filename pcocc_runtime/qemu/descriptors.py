"""What QEMU packages say they install: firmware and vhost-user programs (QEMU: docs/interop)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_UNWANTED = {"requires-smm", "enrolled-keys"}


@dataclass(frozen=True, slots=True)
class UefiFirmware:
    """Firmware in two raw files, `code` and the empty `variables`, for x86-64 `machines`: patterns as of fnmatch(3)."""

    code: str
    variables: str
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VhostUserProgram:
    """The path of a program that serves a kind of device to QEMU, such as fs."""

    kind: str
    binary: str


def parse_uefi(text: bytes) -> UefiFirmware | None:
    """Return what a firmware's descriptor describes; None when it is damaged, or not UEFI that boots any guest.

    Firmware for secure boot is left out: it needs a machine with SMM, and most guests are not signed for its keys.
    """
    try:
        tree = json.loads(text)
        return _uefi_of(tree) if _is_plain_uefi(tree) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_plain_uefi(tree: Any) -> bool:
    mapping = tree["mapping"]
    return (
        "uefi" in tree["interface-types"]
        and mapping["device"] == "flash"
        and mapping.get("mode", "split") == "split"
        and not _UNWANTED & set(tree["features"])
        and {mapping["executable"]["format"], mapping["nvram-template"]["format"]} == {"raw"}
    )


def _uefi_of(tree: Any) -> UefiFirmware:
    code, variables = (tree["mapping"][part]["filename"] for part in ("executable", "nvram-template"))
    targets = (one["machines"] for one in tree["targets"] if one["architecture"] == "x86_64")
    machines = tuple(pattern for listed in targets for pattern in listed)
    if not all(isinstance(one, str) for one in (code, variables, *machines)):
        raise TypeError
    return UefiFirmware(code, variables, machines)


def parse_vhost_user(text: bytes) -> VhostUserProgram | None:
    """Return what a vhost-user program's descriptor describes, None when it is damaged."""
    try:
        tree = json.loads(text)
        kind, binary = tree["type"], tree["binary"]
    except (ValueError, KeyError, TypeError):
        return None
    return VhostUserProgram(kind, binary) if isinstance(kind, str) and isinstance(binary, str) else None

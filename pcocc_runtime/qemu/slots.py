"""PCI slots: which devices are on the root bus, and which go behind a bridge when there is no room for them."""

from __future__ import annotations

from collections.abc import Iterator

from pcocc_runtime.qemu.disks import count_slots

SLOTS = 30  # of 32: the host bridge and the chipset's own functions take a slot each, on q35 and on pc
_SPARE = 6  # kept free for devices of custom-args
_FUNCTIONS = 8  # of a slot
MOST_MOUNTS = 128  # the bridge has room for 31 slots of functions
_BRIDGE = "more"


def count_fixed(disk_model: str, disks: int, nics: int, display: str | None) -> int:
    """Return the PCI slots of the devices that stay on the root bus, where guests have always found them."""
    return count_slots(disk_model, disks) + nics + (2 if display else 0)


def needs_bridge(fixed: int, movable: int) -> bool:
    """Tell whether the root bus has too few slots for all devices, those that must be on it and the others."""
    return fixed + movable > SLOTS - _SPARE


def count_used(fixed: int, movable: int) -> int:
    """Return the slots of the root bus that devices take."""
    return fixed + (1 if needs_bridge(fixed, movable) else movable)


def plan_bridge(fixed: int, movable: int) -> list[str]:
    """Return the options of the bridge where one is needed."""
    return (
        ["-device", f"pci-bridge,id={_BRIDGE},chassis_nr=1,shpc=off"] if needs_bridge(fixed, movable) else []
    )


def plan_addresses(fixed: int, movable: int) -> Iterator[str]:
    """Yield the end of the options of each device that may be behind the bridge: empty if there is no bridge.

    Eight devices share a slot, as its functions: 64 devices with a slot each would take three bridges.
    """
    for number in range(_FUNCTIONS, _FUNCTIONS + movable):  # slot 0 of a bridge may be its own controller's
        slot, function = divmod(number, _FUNCTIONS)
        place = f",bus={_BRIDGE},multifunction=on,addr={slot:x}.{function}"
        yield place if needs_bridge(fixed, movable) else ""

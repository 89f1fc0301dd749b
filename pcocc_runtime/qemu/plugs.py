"""Places for devices that a running VM is given: on q35, root ports of its boot (docs/pcie.txt of QEMU).

All of them are functions of one slot, the last that the chipset leaves free. A port has one device.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pcocc_runtime.qemu.disks import machine_kind

PLUGS = 4
_SLOT = 0x1E
_CHASSIS = 64  # of these ports; those of functions (functions.py) count from 1
_PREFIX = "plug"


def plan_plugs(machine: str, used: int, custom_args: Sequence[str]) -> list[str]:
    """Return the options of the ports; none where `used` slots and the user's own arguments may need their slot."""
    kind = machine_kind(machine)
    own = sum("-device" in word for word in custom_args)
    if not (kind == "q35" or kind.startswith("pc-q35")) or used + own >= _SLOT:
        return []
    if any("addr=" in word for word in custom_args):
        return []
    first = ",multifunction=on"
    return [
        word
        for number in range(PLUGS)
        for word in (
            "-device",
            f"pcie-root-port,id={_PREFIX}{number},bus=pcie.0,chassis={_CHASSIS + number},slot={number + 1},"
            f"addr={_SLOT:x}.{number}{first if number == 0 else ''}",
        )
    ]


def find_plug(devices: Collection[str], taken: Collection[str], machine: str) -> str | None:
    """Return the bus for another device of a VM, None if there is none.

    `devices` are QEMU's names of the VM's devices, `taken` the buses that some are on, `machine` is its type, such as
    pc-i440fx-7.2-machine, whose own bus takes devices at any time.
    """
    if "i440fx" in machine:
        return "pci.0"
    return next((name for name in sorted(devices) if is_plug(name) and name not in taken), None)


def is_plug(name: str) -> bool:
    """Tell whether this is QEMU's name of one of the ports, and so of its bus."""
    return name.startswith(_PREFIX) and name[len(_PREFIX) :].isdigit()

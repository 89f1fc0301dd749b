"""The InfiniBand devices of a node and their virtual functions, read from /sys; that needs no privilege."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.partitions import DRIVER, Function, Hca

_IPOIB = "32"  # ARPHRD_INFINIBAND, linux/if_arp.h


def read_devices(names: Iterable[str], sys: Path = Path("/sys")) -> dict[str, Hca]:
    """Return the devices of these names; NodeError when one is not there or has no functions."""
    return {name: _read_device(sys / "class/infiniband" / name / "device", name) for name in names}


def ensure_bound(names: Iterable[str], sys: Path = Path("/sys")) -> None:
    """Bind each function of these devices that has no driver to vfio-pci, and nothing else.

    The function alone is told its driver, not all devices of its kind (Documentation/ABI/testing/sysfs-bus-pci).
    """
    for device in read_devices(names, sys).values():
        for one in device.functions:
            if one.driver is None:
                (sys / "bus/pci/devices" / one.address / "driver_override").write_text(DRIVER)
                (sys / "bus/pci/drivers_probe").write_text(one.address)


def _read_device(path: Path, name: str) -> Hca:
    here = os.uname().nodename
    if not path.exists():
        hint = "see host-device in /etc/pcocc/networks.yaml, and 'ls /sys/class/infiniband'"
        raise NodeError(f"{here} has no InfiniBand device {name}", hint=hint)
    found = [
        one.name for one in sorted((path / "net").glob("*")) if (one / "type").read_text().strip() == _IPOIB
    ]
    if not found:
        message = f"{name} of {here} has no interface for IP, which Linux needs to set GUIDs"
        raise NodeError(message, hint="ask the admins to load the kernel module ib_ipoib")
    functions = sorted(path.glob("virtfn*"), key=lambda one: int(one.name.removeprefix("virtfn")))
    if not functions:
        raise NodeError(
            f"{name} of {here} has no virtual functions",
            hint="ask the admins to set sriov_numvfs of the device before slurmd starts",
        )
    return Hca(found[0], tuple(_read_function(one) for one in functions))


def _read_function(path: Path) -> Function:
    real = path.resolve()
    group = real / "iommu_group"
    if not group.exists():
        message = f"{os.uname().nodename} has no IOMMU, or does not use it: VMs cannot be given {real.name}"
        raise NodeError(message, hint="ask the admins to turn it on")
    driver = real / "driver"
    others = tuple(sorted(one.name for one in (group / "devices").iterdir() if one.name != real.name))
    number = int(path.name.removeprefix("virtfn"))
    numa = int((real / "numa_node").read_text())
    return Function(
        number, real.name, driver.resolve().name if driver.exists() else None, group.resolve().name, others,
        numa,
    )

"""Which devices a node has for VMs, and their functions: read from /sys, which needs no rights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import Function, Stock, stock_of
from pcocc_runtime.networks.kinds import DevicePool, FunctionNetwork, GenericPci
from pcocc_runtime.networks.partitions import Hca

_IPOIB = "32"  # ARPHRD_INFINIBAND, linux/if_arp.h
_BRIDGE = "0x0604"  # class of devices that the kernel may keep in a VM's IOMMU group (Documentation/driver-api/vfio)


def read_devices(names: Iterable[str], sys: Path = Path("/sys")) -> dict[str, Hca]:
    """Return the InfiniBand devices with these names; NodeError when one is missing or has no functions."""
    return {name: _read_device(sys / "class/infiniband" / name, name) for name in names}


def read_others(names: Iterable[str], sys: Path = Path("/sys")) -> dict[str, Hca]:
    """Return those of the named InfiniBand devices whose functions can be given to VMs."""
    found = dict[str, Hca]()
    for name in names:
        with contextlib.suppress(NodeError):
            found |= read_devices([name], sys)
    return found


def read_stocks(
    networks: Iterable[FunctionNetwork], pools: Iterable[DevicePool], hcas: Mapping[str, Hca], sys: Path = Path("/sys")
) -> tuple[Stock, ...]:
    """Return what the node has of the GRES of these networks and pools, in the order of gres.conf.

    A stock of which the node has nothing is there, without functions.
    """
    found, places = dict[str, Stock](), sys / "bus/pci/devices"
    every = sorted(os.listdir(places)) if places.exists() else []
    for one in networks:
        name = stock_of(one)
        if isinstance(one, GenericPci):
            found[name] = Stock(name, one.gres, _read_pool(one.pool, every, places), one.host_driver)
        elif one.host_device in hcas:
            found.setdefault(name, Stock(name, one.gres, hcas[one.host_device].functions))
    more = (Stock(one.gres, one.gres, _read_pool(one, every, places), one.host_driver) for one in pools)
    return (*found.values(), *more)


def _read_pool(pool: DevicePool, every: Sequence[str], places: Path) -> tuple[Function, ...]:
    named, ids = [full_address(one) for one in pool.addresses], {one.lower() for one in pool.ids}
    of_kind = [one for one in every if one not in named and _kind_of(places / one) in ids] if ids else []
    found = [*(one for one in named if one in every), *of_kind]
    return tuple(_read_function(places / one, place) for place, one in enumerate(found))


def full_address(text: str) -> str:
    """Return a PCI address as the kernel writes it, with its domain."""
    return text.lower() if text.count(":") == 2 else f"0000:{text.lower()}"


def _kind_of(path: Path) -> str:
    return ":".join((path / name).read_text().strip().removeprefix("0x") for name in ("vendor", "device"))


def _read_device(place: Path, name: str) -> Hca:
    here, path = os.uname().nodename, place / "device"
    if not path.exists():
        hint = "see host-device in /etc/pcocc/networks.yaml, and 'ls /sys/class/infiniband'"
        raise NodeError(f"{here} has no InfiniBand device {name}", hint=hint)
    found = [
        one.name for one in sorted((path / "net").glob("*")) if (one / "type").read_text().strip() == _IPOIB
    ]
    if not found:
        message = f"{name} on {here} has no IP interface, which Linux needs to set GUIDs"
        raise NodeError(message, hint="ask the admins to load the kernel module ib_ipoib")
    functions = sorted(path.glob("virtfn*"), key=lambda one: int(one.name.removeprefix("virtfn")))
    if not functions:
        raise NodeError(
            f"{name} on {here} has no virtual functions",
            hint="ask the admins to set sriov_numvfs of the device before slurmd starts",
        )
    guid = int((place / "node_guid").read_text().replace(":", ""), 16)
    numbers = [int(one.name.removeprefix("virtfn")) for one in functions]
    return Hca(found[0], tuple(map(_read_function, functions, numbers)), guid)


def _read_function(path: Path, number: int) -> Function:
    real = path.resolve()
    group = real / "iommu_group"
    if not group.exists():
        message = f"{real.name} cannot be given to VMs: {os.uname().nodename} has no IOMMU, or it is turned off"
        raise NodeError(message, hint="ask the admins to turn it on, in the firmware and for the kernel")
    driver = real / "driver"
    others = sorted(
        one.name for one in (group / "devices").iterdir() if one.name != real.name and not _is_bridge(one)
    )
    numa = int((real / "numa_node").read_text())
    bound = driver.resolve().name if driver.exists() else None
    return Function(number, real.name, bound, group.resolve().name, tuple(others), numa)


def _is_bridge(path: Path) -> bool:
    kind = path / "class"
    return kind.exists() and kind.read_text().startswith(_BRIDGE)

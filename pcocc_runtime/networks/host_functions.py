"""Which devices a node has for VMs, and their functions: read from /sys, which needs no rights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import Function, PhysicalFunction, Stock, stock_of
from pcocc_runtime.networks.kinds import (
    DevicePool,
    FunctionNetwork,
    GenericPci,
    SriovEthernet,
    VirtualNetwork,
)

_ETHERNET, _IPOIB = "1", "32"  # ARPHRD_ETHER and ARPHRD_INFINIBAND, linux/if_arp.h
_UP = 1  # IFF_UP, linux/if.h
_BRIDGE = "0x0604"  # class of devices that the kernel may keep in a VM's IOMMU group (Documentation/driver-api/vfio)


def read_devices(networks: Iterable[VirtualNetwork], sys: Path = Path("/sys")) -> dict[str, PhysicalFunction]:
    """Return the devices of these networks by their names; NodeError when one is not there or has no functions."""
    found = dict[str, PhysicalFunction]()
    for one in networks:
        if one.host_device not in found:
            read = _read_ethernet if isinstance(one, SriovEthernet) else _read_infiniband
            found[one.host_device] = read(sys, one.host_device)
    return found


def read_known(
    networks: Iterable[VirtualNetwork], sys: Path = Path("/sys")
) -> tuple[dict[str, PhysicalFunction], list[NodeError]]:
    """Return the devices of those of these networks of which VMs can have functions, and what is wrong with others."""
    found, faults = dict[str, PhysicalFunction](), list[NodeError]()
    for one in {one.host_device: one for one in networks}.values():
        try:
            found |= read_devices([one], sys)
        except NodeError as error:
            faults.append(error)
    return found, faults


def read_stocks(
    networks: Iterable[FunctionNetwork], pools: Iterable[DevicePool], devices: Mapping[str, PhysicalFunction],
    sys: Path = Path("/sys")
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
        elif one.host_device in devices:
            found.setdefault(name, Stock(name, one.gres, devices[one.host_device].functions))
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


def _read_infiniband(sys: Path, name: str) -> PhysicalFunction:
    place, here = sys / "class/infiniband" / name, os.uname().nodename
    path = place / "device"
    if not path.exists():
        hint = "see host-device in /etc/pcocc/networks.yaml, and 'ls /sys/class/infiniband'"
        raise NodeError(f"{here} has no InfiniBand device {name}", hint=hint)
    found = [
        one.name for one in sorted((path / "net").glob("*")) if (one / "type").read_text().strip() == _IPOIB
    ]
    if not found:
        message = f"{name} on {here} has no IP interface, which Linux needs to set GUIDs"
        raise NodeError(message, hint="ask the admins to load the kernel module ib_ipoib")
    guid = int((place / "node_guid").read_text().replace(":", ""), 16)
    return PhysicalFunction(found[0], _read_virtual(path, name), guid, own=_read_function(path, 0))


def _read_ethernet(sys: Path, name: str) -> PhysicalFunction:
    place, here = sys / "class/net" / name, os.uname().nodename
    if not (place / "device").exists() or (place / "type").read_text().strip() != _ETHERNET:
        hint = "see host-device in /etc/pcocc/networks.yaml, and 'ip link show'"
        raise NodeError(f"{here} has no Ethernet device with an interface {name}", hint=hint)
    if not int((place / "flags").read_text(), 16) & _UP:
        message = f"{name} on {here} is down, and so are the links of its functions"
        raise NodeError(message, hint=f"ask the admins for 'ip link set {name} up' at each start of the node")
    mtu, path = int((place / "mtu").read_text()), place / "device"
    return PhysicalFunction(name, _read_virtual(path, name), mtu=mtu, own=_read_function(path, 0))


def _read_virtual(path: Path, name: str) -> tuple[Function, ...]:
    """Return the virtual functions of a device in their order, whose numbers ip(8) and the kernel count from 0."""
    functions = sorted(path.glob("virtfn*"), key=lambda one: int(one.name.removeprefix("virtfn")))
    if not functions:
        raise NodeError(
            f"{name} on {os.uname().nodename} has no virtual functions",
            hint="ask the admins to set sriov_numvfs of the device before slurmd starts",
        )
    return tuple(_read_function(one, int(one.name.removeprefix("virtfn"))) for one in functions)


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
    return Function(number, real.name, bound, group.resolve().name, tuple(others), numa, _answers(real / "config"))


def _answers(path: Path) -> bool:
    """Tell whether a PCI device answers: of one that is lost all bits are set, of another never those of its status.

    Vendor and device, which stand before them, are always so in a virtual function (PCI Express, 9.3.4.1).
    """
    if not path.exists():
        return True
    with path.open("rb") as file:
        return file.read(8)[4:] != b"\xff" * 4


def _is_bridge(path: Path) -> bool:
    kind = path / "class"
    return kind.exists() and kind.read_text().startswith(_BRIDGE)

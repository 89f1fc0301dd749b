"""PCI functions of the host in QEMU's argument list: each on a bus of the guest's NUMA node that it is near."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pcocc_runtime.documents.hardware import GuestNode
from pcocc_runtime.qemu.disks import machine_kind

_FIRST_BUS = 128  # of those below expanders: the firmware counts the root bus's own from 1


class PassedFunction(NamedTuple):
    """A PCI function of the host by its address, and its NUMA node there, None where it is not known."""

    address: str
    numa: int | None = None


class Passing(NamedTuple):
    """The words of QEMU's command line for functions, and how many slots they take on the root bus.

    Those `behind` expanders must be the last of all: QEMU puts later devices that name no bus on the newest expander.
    """

    plain: tuple[str, ...]
    behind: tuple[str, ...]
    slots: int


def plan_passing(functions: Sequence[PassedFunction], nodes: Sequence[GuestNode], machine: str) -> Passing:
    """Return how functions are passed: each by itself on the root bus, or where q35 has several NUMA nodes, each of a
    node that the guest has behind a root port of an expander of that node (docs/pcie.txt of QEMU).
    """
    places = {one.host: place for place, one in enumerate(nodes)}
    if len(nodes) < 2 or not machine_kind(machine).startswith("q35"):
        places = {}
    near = {place: [one for one in functions if one.numa == host] for host, place in places.items()}
    words, bus, port = list[str](), _FIRST_BUS, 0
    for place, some in near.items():
        if some:
            words += ["-device", f"pxb-pcie,id=near{place},bus=pcie.0,bus_nr={bus},numa_node={place}"]
        for one in some:
            port += 1
            words += ["-device", f"pcie-root-port,id=port{port},bus=near{place},chassis={port}"]
            words += _pass(one, f",bus=port{port}")
        bus += len(some) + 1
    others = [one for one in functions if one.numa not in places]
    plain = [word for one in others for word in _pass(one)]
    return Passing(tuple(plain), tuple(words), len(others) + sum(map(bool, near.values())))


def _pass(one: PassedFunction, bus: str = "") -> list[str]:
    return ["-device", f"vfio-pci,host={one.address}{bus}"]

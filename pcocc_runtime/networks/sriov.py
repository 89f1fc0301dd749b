"""Virtual functions of Ethernet devices: what ip(8) is told of them before a VM has one, and after.

The device itself then sends and receives frames of that VM's address and VLAN only, whatever the guest does
(ip-link(8): vf). A guest that is not trusted cannot listen to others' frames, and has no other address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import Given, PhysicalFunction
from pcocc_runtime.networks.kinds import SriovEthernet
from pcocc_runtime.networks.plan import ensure_ranks_fit

_NO_MAC = "00:00:00:00:00:00"  # of a function that nobody has: its driver may take any


class EthernetPort(NamedTuple):
    """A function as ip(8) names it, and what its VM has: MAC address, MTU, VLAN (0 for none), Mbit/s (0 for any)."""

    interface: str
    number: int
    mac: str
    mtu: int
    vlan: int
    rate: int


def plan_ethernet_ports(
    step: BootStep, used: Iterable[SriovEthernet], devices: Mapping[str, PhysicalFunction], given: Iterable[Given]
) -> dict[tuple[str, int], EthernetPort]:
    """Return the functions of Ethernet devices that VMs here have, by network and rank of their VM.

    `used` are all such networks of the job, the same on each of its nodes. NodeError when VMs cannot have them.
    """
    given, found = tuple(given), dict[tuple[str, int], EthernetPort]()
    for place, spec in enumerate(used):
        ensure_ranks_fit(spec.name, step.vm_count)
        device, index = devices[spec.host_device], naming.MAX_NETWORKS - 1 - place  # networks of frames count up from 0
        if spec.mtu > device.mtu:
            message = f"network {spec.name!r} has MTU {spec.mtu}, but {device.interface} of {step.here.name} only"
            hint = "ask the admins to lower mtu in /etc/pcocc/networks.yaml, or to raise the interface's"
            raise NodeError(f"{message} {device.mtu}", hint)
        for one in given:
            if one.source == spec.name:
                mac = addressing.bridged_mac(step.job, one.rank, index)
                found[spec.name, one.rank] = EthernetPort(
                    device.interface, one.function.number, mac, spec.mtu, spec.vlan, spec.rate
                )
    return found


def render_plugging(ports: Iterable[EthernetPort]) -> str:
    """Return the lines for ip(8) that make functions those of VMs; a rate, which few drivers limit, if asked for."""
    return "".join(
        _line(one, f"vlan {one.vlan}") + _line(one, "spoofchk on") + _line(one, "trust off") + _rate(one, one.rate)
        + _line(one, f"mac {one.mac}")
        for one in ports
    )  # fmt: skip


def render_unplugging(ports: Iterable[EthernetPort]) -> str:
    """Return the lines for ip(8) that take functions back: no VM's address, VLAN or rate is in them any more."""
    return "".join(_line(one, f"mac {_NO_MAC}") + _line(one, "vlan 0") + _rate(one, 0) for one in ports)


def _rate(one: EthernetPort, rate: int) -> str:
    return _line(one, f"min_tx_rate 0 max_tx_rate {rate}") if one.rate else ""


def _line(one: EthernetPort, what: str) -> str:
    return f"link set dev {one.interface} vf {one.number} {what}\n"

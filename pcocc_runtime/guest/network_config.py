"""A VM's interfaces as its guest configures them: cloud-init's network-config, so that no boot waits for DHCP.

Version 1 of the format (https://cloudinit.readthedocs.io, "Networking config Version 1"): every renderer of
every release knows it, and it names an interface by its MAC address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pcocc_runtime import addressing
from pcocc_runtime.documents.node import NetworkFacts, NodeFacts, RoutedFacts, SegmentFacts


@dataclass(frozen=True, slots=True)
class Subnet:
    """An address with its prefix length, and the gateway that goes with it; either family."""

    address: str
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface; without subnets it is left to DHCP, or, when `is_bare`, to the user."""

    name: str
    mac: str
    mtu: int
    subnets: tuple[Subnet, ...] = ()
    is_bare: bool = False
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def plan_interfaces(node: NodeFacts, rank: int) -> tuple[Interface, ...]:
    """Return the interfaces of a VM of this node, in their order."""
    networks = {network.index: network for network in node.networks}
    return tuple(
        _plan(place, one.mac, networks[one.network], rank) for place, one in enumerate(node.interfaces[rank])
    )


def plan_function_interfaces(node: NodeFacts, rank: int) -> tuple[Interface, ...]:
    """Return the interfaces that a VM's functions of Ethernet devices are in its guest, behind those above: by DHCP."""
    functions, first = node.functions.get(rank, ()), len(node.interfaces[rank])
    found = [(one.mac, one.mtu) for one in functions if one.mac is not None and one.mtu is not None]
    return tuple(Interface(f"eth{place}", mac, mtu) for place, (mac, mtu) in enumerate(found, first))


def _plan(place: int, mac: str, network: NetworkFacts, rank: int) -> Interface:
    name = f"eth{place}"
    if not isinstance(network, RoutedFacts):
        return Interface(name, mac, network.mtu, is_bare=isinstance(network, SegmentFacts))
    gateway = network.gateway if place == 0 else None  # as with DHCP, where the first interface's route wins
    subnets = [Subnet(f"{network.address_of(rank)}/{network.addresses.prefixlen}", gateway)]
    if network.addresses6:  # routes to all other addresses come with router advertisements
        subnets.append(Subnet(f"{addressing.vm_address6(network.addresses6, rank)}/128"))
    search = (network.domain, *network.search)
    return Interface(name, mac, network.mtu, tuple(subnets), False, (network.gateway,), search)


def render_network_config(interfaces: Iterable[Interface]) -> str:
    """Return the text of the seed's network-config."""
    lines = ["version: 1", "config:"]
    for one in interfaces:
        lines += [
            "- type: physical", f"  name: {one.name}", f'  mac_address: "{one.mac}"', f"  mtu: {one.mtu}",
            *_render_subnets(one),
        ]  # fmt: skip
    return "\n".join(lines) + "\n" if len(lines) > 2 else "version: 1\nconfig: []\n"


def _render_subnets(one: Interface) -> list[str]:
    if not one.subnets:
        return [f"  subnets: [{{type: {'manual' if one.is_bare else 'dhcp4'}}}]"]
    lines = ["  subnets:"]
    names = [("dns_nameservers", one.dns), ("dns_search", one.search)]
    for subnet in one.subnets:
        family = "static6" if ":" in subnet.address else "static"
        lines += [f"  - type: {family}", f'    address: "{subnet.address}"']
        if subnet.gateway:
            lines.append(f'    gateway: "{subnet.gateway}"')
        for key, words in [pair for pair in names if pair[1]]:
            lines.append(f"    {key}: [{', '.join(f'{chr(34)}{word}{chr(34)}' for word in words)}]")
        names = []  # once is enough, with the first
    return lines

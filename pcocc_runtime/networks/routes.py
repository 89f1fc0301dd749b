"""How the nodes of a job route an L3 network to each other: batches for ip(8) and bridge(8), rendered purely.

A node has a tunnel device per network, and for each peer one neighbour, one forwarding entry, and routes for
the peer's VMs and own address: nothing is flooded or learned, and nothing grows with the number of VMs (see
005-routed-l3.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address

from pcocc_runtime import addressing
from pcocc_runtime.networks.plan import Routed


def render_routes(plan: Routed) -> str:
    """Return the ip(8) batch that leads to the VMs and addresses of a network's other nodes; may be applied again."""
    first, net = int(plan.spec.int_network.network_address) + 1, plan.spec.int_network
    source = f"src {plan.node_address}"
    lines = [f"route replace {net} dev {plan.bridge} scope link {source}"]
    for tap in plan.taps:  # else the first packets to a guest that boots wait seconds for an answer to ARP
        lines.append(f"neigh replace {tap.address} lladdr {tap.mac} dev {plan.bridge} nud permanent")
    for index, peer in plan.members.peers():
        hop = str(addressing.node_address(net, index))
        way = f"via {hop} dev {plan.wire} onlink {source}"
        lines.append(
            f"neigh replace {hop} lladdr {addressing.node_mac(index, plan.index)} dev {plan.wire} nud"
            " permanent"
        )
        lines.append(f"route replace {hop} dev {plan.wire} scope link {source}")
        lines += [
            f"route replace {prefix} {way}"
            for run in _runs(plan.members.ranks_of(peer))
            for prefix in _prefixes(first, *run)
        ]
    lines += _addresses6(plan)
    return "\n".join(lines) + "\n"


def _addresses6(plan: Routed) -> Iterator[str]:
    """Yield the IPv6 part of a network: the router's addresses, its VMs for dnsmasq, and ways to the peers."""
    if not plan.network6:
        return
    yield f"addr replace {addressing.link_local_address(plan.bridge_mac)}/64 dev {plan.bridge} nodad"
    yield f"addr replace {plan.gateway6}/{plan.network6.prefixlen} dev {plan.bridge} nodad"
    for tap in plan.taps:  # dnsmasq waits 0.1 s for each DHCPv6 client whose MAC the kernel does not know
        yield (
            f"neigh replace {addressing.link_local_address(tap.mac)} lladdr {tap.mac} dev {plan.bridge} nud"
            " permanent"
        )
    head = str(plan.network6.network_address).removesuffix("::")
    for index, peer in plan.members.peers():
        mac = addressing.node_mac(index, plan.index)
        hop = addressing.link_local_address(mac)
        yield f"neigh replace {hop} lladdr {mac} dev {plan.wire} nud permanent"
        for run in _runs(plan.members.ranks_of(peer)):
            for low, size in _blocks(addressing.FIRST_HOST6, *run):
                address = f"{head}::{low >> 16:x}:{low & 0xFFFF:x}"
                yield f"route replace {address}/{129 - size.bit_length()} via {hop} dev {plan.wire}"


def render_forwarding(plan: Routed, addresses: Mapping[str, str]) -> str:
    """Return the bridge(8) batch that says at which address each peer's tunnel is; `addresses` by node name."""
    lines = [
        f"fdb replace {addressing.node_mac(index, plan.index)} dev {plan.wire} dst {addresses[peer.name]}"
        " self permanent"
        for index, peer in plan.members.peers()
    ]
    return "".join(f"{line}\n" for line in lines)


def _runs(ranks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each run of consecutive ranks."""
    first = last = -1
    for rank in sorted(ranks):
        if rank != last + 1 or first < 0:
            if first >= 0:
                yield first, last
            first = rank
        last = rank
    if first >= 0:
        yield first, last


def _prefixes(base: int, first: int, last: int) -> Iterator[str]:
    """Yield the fewest IPv4 prefixes that cover base+first..base+last; ipaddress does the same, ten times slower."""
    return (f"{IPv4Address(low)}/{33 - size.bit_length()}" for low, size in _blocks(base, first, last))


def _blocks(base: int, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the fewest (start, size), each a prefix, that cover base+first..base+last."""
    low, high = base + first, base + last
    while low <= high:
        size = min(low & -low, 1 << ((high - low + 1).bit_length() - 1))
        yield low, size
        low += size

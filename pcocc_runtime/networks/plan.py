"""The networks of a job as one of its nodes builds them: from the step's layout and the site's files, purely."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network

from pcocc_runtime import naming
from pcocc_runtime.documents.boot_step import BootStep, NodeLayout
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.kinds import BridgedNetwork, BuildableNetwork, EthernetNetwork


@dataclass(frozen=True, slots=True)
class Tap:
    """A VM's interface on this node."""

    name: str
    rank: int
    mac: str
    address: str
    address6: str | None = None


@dataclass(frozen=True, slots=True)
class HostPort:
    """How a network is attached to a bridge of the host: by a pair of devices, one a port there, one in the namespace."""

    name: str
    network: BridgedNetwork


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """One network on one node; `nodes` are still to be resolved, `members` the (first, last) ranks of VMs that are on it.

    A network on a bridge of the host is an L2 one, with `vxlan` the name of its end of the pair to that bridge.
    """

    spec: EthernetNetwork
    index: int
    bridge: str
    gateway_mac: str
    tunnel_mac: str
    gateway: str
    node_address: str
    vxlan: str
    vni: int
    port: int
    taps: tuple[Tap, ...]
    vms: int
    members: tuple[tuple[int, int], ...]
    nodes: tuple[NodeLayout, ...] = ()
    node: int = 0
    network6: IPv6Network | None = None
    gateway6: str | None = None
    host_port: HostPort | None = None

    @property
    def is_routed(self) -> bool:
        """Tell whether the job's nodes route the network's packets (L3) rather than pass its frames on (L2)."""
        return self.spec.layer == "L3"

    @property
    def prefix_length(self) -> int:
        """Return the length of the network's prefix in bits."""
        return self.spec.int_network.prefixlen

    @property
    def has_all(self) -> bool:
        """Tell whether every VM of the cluster is on the network."""
        return self.members == ((0, self.vms - 1),)

    def ranks_of(self, node: NodeLayout) -> tuple[int, ...]:
        """Return the ranks of a node's VMs that are on the network."""
        if self.has_all:
            return node.ranks
        return tuple(rank for rank in node.ranks if any(first <= rank <= last for first, last in self.members))

    def peers(self) -> Iterator[tuple[int, NodeLayout]]:
        """Yield the job's other nodes with their places in it."""
        return ((index, node) for index, node in enumerate(self.nodes) if index != self.node)


def plan_networks(
    step: BootStep,
    specs: Mapping[str, BuildableNetwork],
    sets: Mapping[str, tuple[str, ...]],
    ipv6: bool = True,
) -> tuple[NetworkPlan, ...]:
    """Return the plans of the networks that VMs of this step name, in the order in which they are first named."""
    names: list[str] = []
    for set_name, _count in step.sets:
        if set_name not in sets:
            known = ", ".join(sorted(sets)) or "none"
            raise NodeError(
                f"{step.here.name} knows no resource set {set_name!r}", hint=f"/etc/pcocc/resources.yaml has: {known}"
            )
        names.extend(name for name in sets[set_name] if name not in names)
    if sum(count for _name, count in step.sets) != step.vm_count:
        raise NodeError(f"the step runs {step.vm_count} VMs, the request names another number")
    plans = []
    for index, name in enumerate(names):
        spec, members = specs[name], _find_members(step, {one for one, _count in step.sets if name in sets[one]})
        if isinstance(spec, BridgedNetwork):
            plans.append(_plan_bridged(step, spec, index, members))
        else:
            plans.append(_plan_ethernet(step, spec, index, members, ipv6))
    return tuple(plans)


def _find_members(step: BootStep, chosen: Collection[str]) -> tuple[tuple[int, int], ...]:
    """Return the runs of ranks whose resource set is one of the chosen."""
    found: list[tuple[int, int]] = []
    first = 0
    for set_name, count in step.sets:
        if set_name in chosen and count:
            begin = found.pop()[0] if found and found[-1][1] == first - 1 else first
            found.append((begin, first + count - 1))
        first += count
    return tuple(found)


def _own_ranks(step: BootStep, members: tuple[tuple[int, int], ...]) -> list[int]:
    return [rank for rank in step.here.ranks if any(first <= rank <= last for first, last in members)]


def _plan_ethernet(
    step: BootStep, spec: EthernetNetwork, index: int, members: tuple[tuple[int, int], ...], ipv6: bool
) -> NetworkPlan:
    routed, net = spec.layer == "L3", spec.int_network
    if routed and not naming.room_for(net, step.vm_count, len(step.nodes)):
        raise NodeError(
            f"network {spec.name!r} ({net}) has no room for {step.vm_count} VMs",
            hint="ask for fewer VMs, or have int-network enlarged in /etc/pcocc/networks.yaml",
        )
    net6 = naming.cluster_network6(step.job, index) if routed and ipv6 else None
    taps = tuple(
        Tap(
            naming.tap_name(rank, index),
            rank,
            naming.vm_mac(spec.mac_prefix, rank, index),
            str(naming.vm_address(net, rank)) if routed else "",
            str(naming.vm_address6(net6, rank)) if net6 else None,
        )
        for rank in _own_ranks(step, members)
    )
    return NetworkPlan(
        spec=spec,
        index=index,
        bridge=naming.bridge_name(index),
        gateway_mac=naming.gateway_mac(index),
        tunnel_mac=naming.node_mac(step.index, index),
        gateway=str(naming.gateway_address(net)) if routed else "",
        node_address=str(naming.node_address(net, step.index)) if routed else "",
        vxlan=naming.vxlan_name(index),
        vni=naming.vxlan_vni(step.job),
        port=naming.vxlan_port(step.job, index),
        taps=taps,
        vms=step.vm_count,
        members=members,
        nodes=step.nodes,
        node=step.index,
        network6=net6,
        gateway6=str(naming.gateway_address6(net6)) if net6 else None,
    )


def _plan_bridged(step: BootStep, spec: BridgedNetwork, index: int, members: tuple[tuple[int, int], ...]) -> NetworkPlan:
    if step.vm_count > naming.MAX_BRIDGED_RANK + 1:
        raise NodeError(
            f"network {spec.name!r} is on a bridge of the site, where a job can have {naming.MAX_BRIDGED_RANK + 1} VMs",
            hint="ask for fewer VMs, or use a template whose resource set has private networks only",
        )
    ranks = _own_ranks(step, members)
    taps = (Tap(naming.tap_name(rank, index), rank, naming.bridged_mac(step.job, rank, index), "") for rank in ranks)
    return NetworkPlan(
        spec=EthernetNetwork(spec.name, layer="L2", mtu=spec.mtu, allow_outbound=False),
        index=index,
        bridge=naming.bridge_name(index),
        gateway_mac=naming.gateway_mac(index),
        tunnel_mac=naming.node_mac(step.index, index),
        gateway="",
        node_address="",
        vxlan=naming.inner_port_name(index),
        vni=naming.vxlan_vni(step.job),
        port=naming.vxlan_port(step.job, index),
        taps=tuple(taps),
        vms=step.vm_count,
        members=members,
        nodes=step.nodes,
        node=step.index,
        host_port=HostPort(naming.bridged_port(spec.tap_prefix, step.job, index), spec),
    )


def interfaces_of(
    plans: tuple[NetworkPlan, ...], step: BootStep, sets: Mapping[str, tuple[str, ...]], rank: int
) -> tuple[tuple[NetworkPlan, Tap], ...]:
    """Return a VM's interfaces on this node, eth0 first: in the order of its resource set."""
    mine = {plan.spec.name: (plan, tap) for plan in plans for tap in plan.taps if tap.rank == rank}
    return tuple(mine[name] for name in sets[step.set_of(rank)])


def describe_interfaces(
    plans: tuple[NetworkPlan, ...], step: BootStep, sets: Mapping[str, tuple[str, ...]]
) -> dict[int, list[dict[str, str | int]]]:
    """Return, by rank, what the launcher of a VM of this node must know of its interfaces, eth0 first."""
    return {
        rank: [
            {"network": plan.index, "mac": tap.mac, "mtu": plan.spec.mtu}
            for plan, tap in interfaces_of(plans, step, sets, rank)
        ]
        for rank in step.here.ranks
    }


def describe_reach(
    plans: tuple[NetworkPlan, ...], step: BootStep, sets: Mapping[str, tuple[str, ...]]
) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    """Return at which address a VM is reached: prefixes, each with the (first, last) ranks that have it as their first L3 one."""
    prefixes = {plan.spec.name: str(plan.spec.int_network) for plan in plans if plan.is_routed}
    firsts = {name: next((one for one in sets[name] if one in prefixes), None) for name, _count in step.sets}
    return [
        (prefix, members)
        for network, prefix in prefixes.items()
        if (members := _find_members(step, {name for name, first in firsts.items() if first == network}))
    ]

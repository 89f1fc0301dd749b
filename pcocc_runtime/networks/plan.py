"""The networks of a job as one of its nodes builds them: from the step's layout and the site's files, purely."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import NamedTuple

from pcocc_runtime import addressing
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.documents.work import PortWish
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.kinds import BridgedNetwork, BuildableNetwork, EthernetNetwork


class Tap(NamedTuple):
    """A VM's interface on this node."""

    name: str
    rank: int
    mac: str


class RoutedTap(NamedTuple):
    """A VM's interface in a network where pcocc gives out addresses; `address6` is None on a node without IPv6."""

    name: str
    rank: int
    mac: str
    address: str
    address6: str | None


class Membership(NamedTuple):
    """Which VMs are on a network: runs of (first, last) ranks, of `vms` VMs in all; we are node `node` of `nodes`."""

    runs: tuple[tuple[int, int], ...]
    vms: int
    nodes: tuple[NodeLayout, ...]
    node: int

    @property
    def has_all(self) -> bool:
        """Tell whether every VM of the cluster is on the network."""
        return self.runs == ((0, self.vms - 1),)

    @property
    def own(self) -> tuple[int, ...]:
        """Return the ranks of this node's VMs that are on the network."""
        return self.ranks_of(self.nodes[self.node])

    def ranks_of(self, node: NodeLayout) -> tuple[int, ...]:
        """Return the ranks of a node's VMs that are on the network."""
        if self.has_all:
            return node.ranks
        return tuple(rank for rank in node.ranks if any(first <= rank <= last for first, last in self.runs))

    def peers(self) -> Iterator[tuple[int, NodeLayout]]:
        """Yield the job's other nodes with their places in it."""
        return ((index, node) for index, node in enumerate(self.nodes) if index != self.node)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ethernet:
    """What passes frames on in the job's namespace: `bridge` connects the VMs' taps, `wire` leads out of the node."""

    index: int
    members: Membership
    bridge: str
    bridge_mac: str
    wire: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed(_Ethernet):
    """An L3 network: the job's nodes route its packets, through the tunnel `wire`, where each node has its own MAC.

    The bridge has the same MAC on every node, and the addresses `gateway`, `node_address` and, with IPv6, `gateway6`.
    """

    spec: EthernetNetwork
    taps: tuple[RoutedTap, ...]
    vni: int
    port: int
    wire_mac: str
    gateway: str
    node_address: str
    network6: IPv6Network | None
    gateway6: str | None

    @property
    def prefix_length(self) -> int:
        """Return the length of the network's prefix in bits."""
        return self.spec.int_network.prefixlen


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(_Ethernet):
    """An L2 network: the tunnel `wire` passes any frame on to the job's other nodes, and pcocc gives out no address."""

    spec: EthernetNetwork
    taps: tuple[Tap, ...]
    vni: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridged(_Ethernet):
    """A network on a bridge of the host: `wire` in the job's namespace is a pair with `host_port`, a port of it."""

    spec: BridgedNetwork
    taps: tuple[Tap, ...]
    host_port: str


# of networks that pass Ethernet frames; InfiniBand's are in partitions.py
NetworkPlan = Routed | Segment | Bridged


def plan_networks(
    step: BootStep, specs: Mapping[str, BuildableNetwork], sets: Mapping[str, tuple[str, ...]],
    ipv6: bool = True
) -> tuple[NetworkPlan, ...]:
    """Return the plans of the networks that VMs of this step name, in the order in which they are first named."""
    names: list[str] = []
    for set_name, _count in step.sets:
        if set_name not in sets:
            known = ", ".join(sorted(sets)) or "none"
            raise NodeError(
                f"{step.here.name} knows no resource set {set_name!r}",
                hint=f"/etc/pcocc/resources.yaml has: {known}"
            )
        names.extend(name for name in sets[set_name] if name not in names)
    if sum(count for _name, count in step.sets) != step.vm_count:
        raise NodeError(f"the step runs {step.vm_count} VMs, but the request names another number")
    return tuple(
        _plan_network(
            step, specs[name], index,
            find_runs(step, {one for one, _count in step.sets if name in sets[one]}), ipv6,
        )
        for index, name in enumerate(names)
    )


def _plan_network(
    step: BootStep, spec: BuildableNetwork, index: int, runs: tuple[tuple[int, int], ...], ipv6: bool
) -> NetworkPlan:
    members = Membership(runs, step.vm_count, step.nodes, step.index)
    if isinstance(spec, BridgedNetwork):
        return _plan_bridged(step.job, spec, index, members)
    if spec.layer == "L3":
        return _plan_routed(step.job, spec, index, members, ipv6)
    return _plan_segment(step.job, spec, index, members)


def find_runs(step: BootStep, chosen: Collection[str]) -> tuple[tuple[int, int], ...]:
    """Return the (first, last) ranks of the VMs whose resource set is one of the chosen."""
    found: list[tuple[int, int]] = []
    first = 0
    for set_name, count in step.sets:
        if set_name in chosen and count:
            begin = found.pop()[0] if found and found[-1][1] == first - 1 else first
            found.append((begin, first + count - 1))
        first += count
    return tuple(found)


def _plan_routed(job: int, spec: EthernetNetwork, index: int, members: Membership, ipv6: bool) -> Routed:
    net = spec.int_network
    if not addressing.room_for(net, members.vms, len(members.nodes)):
        raise NodeError(
            f"network {spec.name!r} ({net}) has no room for {members.vms} VMs",
            hint="ask for fewer VMs, or have int-network enlarged in /etc/pcocc/networks.yaml",
        )
    net6 = addressing.cluster_network6(job, index) if ipv6 else None
    taps = (
        RoutedTap(
            addressing.tap_name(rank, index), rank, addressing.vm_mac(spec.mac_prefix, rank, index),
            str(addressing.vm_address(net, rank)),
            str(addressing.vm_address6(net6, rank)) if net6 else None,
        )
        for rank in members.own
    )
    return Routed(
        index=index,
        spec=spec,
        members=members,
        taps=tuple(taps),
        bridge=addressing.bridge_name(index),
        bridge_mac=addressing.gateway_mac(index),
        wire=addressing.vxlan_name(index),
        wire_mac=addressing.node_mac(members.node, index),
        vni=addressing.vxlan_vni(job),
        port=addressing.vxlan_port(job, index),
        gateway=str(addressing.gateway_address(net)),
        node_address=str(addressing.node_address(net, members.node)),
        network6=net6,
        gateway6=str(addressing.gateway_address6(net6)) if net6 else None,
    )


def _plan_segment(job: int, spec: EthernetNetwork, index: int, members: Membership) -> Segment:
    taps = (
        Tap(addressing.tap_name(rank, index), rank, addressing.vm_mac(spec.mac_prefix, rank, index))
        for rank in members.own
    )
    return Segment(
        index=index,
        spec=spec,
        members=members,
        taps=tuple(taps),
        bridge=addressing.bridge_name(index),
        bridge_mac=addressing.node_mac(members.node, index),
        wire=addressing.vxlan_name(index),
        vni=addressing.vxlan_vni(job),
        port=addressing.vxlan_port(job, index),
    )


def _plan_bridged(job: int, spec: BridgedNetwork, index: int, members: Membership) -> Bridged:
    if members.vms > addressing.MAX_BRIDGED_RANK + 1:
        raise NodeError(
            f"network {spec.name!r} is on a bridge of the site, where a job can have"
            f" {addressing.MAX_BRIDGED_RANK + 1} VMs",
            hint="ask for fewer VMs, or use a template whose resource set has private networks only",
        )
    taps = (
        Tap(addressing.tap_name(rank, index), rank, addressing.bridged_mac(job, rank, index))
        for rank in members.own
    )
    return Bridged(
        index=index,
        spec=spec,
        members=members,
        taps=tuple(taps),
        bridge=addressing.bridge_name(index),
        bridge_mac=addressing.node_mac(members.node, index),
        wire=addressing.inner_port_name(index),
        host_port=addressing.bridged_port(spec.tap_prefix, job, index),
    )


def interfaces_of(
    plans: tuple[NetworkPlan, ...], step: BootStep, sets: Mapping[str, tuple[str, ...]], rank: int
) -> tuple[tuple[NetworkPlan, Tap | RoutedTap], ...]:
    """Return a VM's interfaces on this node, eth0 first: in the order of its resource set."""
    mine = {plan.spec.name: (plan, tap) for plan in plans for tap in plan.taps if tap.rank == rank}
    return tuple(mine[name] for name in sets[step.set_of(rank)])


def find_ways_out(plans: Iterable[NetworkPlan]) -> list[Routed]:
    """Return the networks with packets that may pass between the job's namespace and the host's."""
    return [
        plan
        for plan in plans
        if isinstance(plan, Routed) and (plan.spec.allow_outbound or plan.spec.reverse_nat)
    ]


def plan_port_wishes(plans: Iterable[NetworkPlan]) -> tuple[PortWish, ...]:
    """Return the ports of this node's VMs that host ports shall lead to, in the order in which these are chosen."""
    return tuple(
        PortWish(plan.index, plan.spec.name, tap.rank, rule.vm_port, rule.min_host_port, rule.max_host_port)
        for plan in find_ways_out(plans)
        for tap in plan.taps
        for rule in plan.spec.reverse_nat
    )


def plan_port_ranges(networks: Iterable[BuildableNetwork]) -> tuple[PortWish, ...]:
    """Return the ranges of host ports that lead to VMs of some networks, one wish for each range."""
    return tuple(
        PortWish(0, network.name, 0, rule.vm_port, rule.min_host_port, rule.max_host_port)
        for network in networks
        if isinstance(network, EthernetNetwork)
        for rule in network.reverse_nat
    )

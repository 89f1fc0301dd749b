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


@dataclass(frozen=True, slots=True)
class _Ethernet:
    """The `index`-th network of a job on this node: what passes frames on in the job's namespace.

    The bridge connects the VMs' taps, and the `wire` of each class below leads out of the namespace.
    """

    job: int
    index: int
    members: Membership

    @property
    def bridge(self) -> str:
        """Return the name of the bridge."""
        return addressing.bridge_name(self.index)

    @property
    def bridge_mac(self) -> str:
        """Return the bridge's MAC, another on each node."""
        return addressing.node_mac(self.members.node, self.index)


@dataclass(frozen=True, slots=True)
class _Private(_Ethernet):
    """A network of the job's own: `wire` is a tunnel to the job's other nodes."""

    spec: EthernetNetwork

    @property
    def wire(self) -> str:
        """Return the name of the tunnel's device."""
        return addressing.vxlan_name(self.index)

    @property
    def vni(self) -> int:
        """Return the tunnel's VNI."""
        return addressing.vxlan_vni(self.job)

    @property
    def port(self) -> int:
        """Return the UDP port of the tunnel."""
        return addressing.vxlan_port(self.job, self.index)


@dataclass(frozen=True, slots=True)
class Routed(_Private):
    """An L3 network: the job's nodes route its packets. `network6` is None on a node without IPv6."""

    taps: tuple[RoutedTap, ...]
    network6: IPv6Network | None

    @property
    def bridge_mac(self) -> str:
        """Return the bridge's MAC, the same on every node, as the gateway's address is."""
        return addressing.gateway_mac(self.index)

    @property
    def wire_mac(self) -> str:
        """Return the MAC of the tunnel's device, another on each node."""
        return addressing.node_mac(self.members.node, self.index)

    @property
    def gateway(self) -> str:
        """Return the VMs' gateway, an address of the bridge."""
        return str(addressing.gateway_address(self.spec.int_network))

    @property
    def gateway6(self) -> str | None:
        """Return the same for IPv6."""
        return str(addressing.gateway_address6(self.network6)) if self.network6 else None

    @property
    def node_address(self) -> str:
        """Return this node's own address of the bridge."""
        return str(addressing.node_address(self.spec.int_network, self.members.node))

    @property
    def prefix_length(self) -> int:
        """Return the length of the network's prefix in bits."""
        return self.spec.int_network.prefixlen


@dataclass(frozen=True, slots=True)
class Segment(_Private):
    """An L2 network: the tunnel passes any frame on, and pcocc gives out no address."""

    taps: tuple[Tap, ...]


@dataclass(frozen=True, slots=True)
class Bridged(_Ethernet):
    """A network on a bridge of the host: `wire` in the job's namespace is a pair with `host_port`, a port of it."""

    spec: BridgedNetwork
    taps: tuple[Tap, ...]

    @property
    def wire(self) -> str:
        """Return the name of the device in the job's namespace."""
        return addressing.inner_port_name(self.index)

    @property
    def host_port(self) -> str:
        """Return the name of the device that is a port of the host's bridge."""
        return addressing.bridged_port(self.spec.tap_prefix, self.job, self.index)


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
    job, members = step.job, Membership(runs, step.vm_count, step.nodes, step.index)
    _ensure_room(spec, members)
    taps = tuple(
        Tap(addressing.tap_name(rank, index), rank, _mac_of(spec, job, rank, index)) for rank in members.own
    )
    if isinstance(spec, BridgedNetwork):
        return Bridged(job, index, members, spec, taps)
    if spec.layer != "L3":
        return Segment(job, index, members, spec, taps)
    net, net6 = spec.int_network, addressing.cluster_network6(job, index) if ipv6 else None
    routed = tuple(
        RoutedTap(
            *tap, str(addressing.vm_address(net, tap.rank)),
            str(addressing.vm_address6(net6, tap.rank)) if net6 else None,
        )
        for tap in taps
    )
    return Routed(job, index, members, spec, routed, net6)


def _mac_of(spec: BuildableNetwork, job: int, rank: int, index: int) -> str:
    """Return the MAC of a VM's interface; that on a bridge of the site differs from every other job's."""
    if isinstance(spec, BridgedNetwork):
        return addressing.bridged_mac(job, rank, index)
    return addressing.vm_mac(spec.mac_prefix, rank, index)


def _ensure_room(spec: BuildableNetwork, members: Membership) -> None:
    """Raise NodeError when the network cannot have all VMs of the cluster."""
    if isinstance(spec, BridgedNetwork):
        ensure_ranks_fit(spec.name, members.vms)
    if isinstance(spec, EthernetNetwork) and spec.layer == "L3" and not addressing.room_for(
        spec.int_network, members.vms, len(members.nodes)
    ):
        raise NodeError(
            f"network {spec.name!r} ({spec.int_network}) has no room for {members.vms} VMs",
            hint="ask for fewer VMs, or have int-network enlarged in /etc/pcocc/networks.yaml",
        )


def ensure_ranks_fit(name: str, vms: int) -> None:
    """Raise NodeError when a job has too many VMs for addresses that no other job on a segment of the site's has."""
    most = addressing.MAX_BRIDGED_RANK + 1
    if vms > most:
        raise NodeError(
            f"network {name!r} is the site's own, where a job can have {most} VMs",
            hint="ask for fewer VMs, or use a template whose resource set has private networks only",
        )


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

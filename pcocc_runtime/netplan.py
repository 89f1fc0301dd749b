"""The networks of a job as one of its nodes builds them: from the step's layout and the site's files, purely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError
from pcocc_runtime.layout import BootStep, NodeLayout
from pcocc_runtime.networks import BuildableNetwork, EthernetNetwork


@dataclass(frozen=True, slots=True)
class Tap:
    """A VM's interface on this node."""

    name: str
    rank: int
    mac: str
    address: str
    address6: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """One network on one node; `members` are the (first, last) ranks of its VMs on all nodes."""

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
    members: tuple[tuple[int, int], ...] = ()
    nodes: tuple[NodeLayout, ...] = ()
    node: int = 0
    gateway6: str | None = None

    @property
    def is_routed(self) -> bool:
        """Tell whether the job's nodes route the network's packets (L3) rather than pass its frames on (L2)."""
        return self.spec.layer == "L3"

    @property
    def prefix_length(self) -> int:
        """Return the length of the network's prefix in bits."""
        return self.spec.int_network.prefixlen


def plan_networks(
    step: BootStep, specs: Mapping[str, BuildableNetwork], sets: Mapping[str, tuple[str, ...]]
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
    return tuple(_plan_network(step, _private(specs[name]), index, sets) for index, name in enumerate(names))


def _private(spec: BuildableNetwork) -> EthernetNetwork:
    if not isinstance(spec, EthernetNetwork):
        raise NodeError(f"network {spec.name!r} cannot be built by the pcocc of this node yet")
    return spec


def _plan_network(step: BootStep, spec: EthernetNetwork, index: int, sets: Mapping[str, tuple[str, ...]]) -> NetworkPlan:
    if spec.layer == "L3" and not naming.room_for(spec.int_network, step.vm_count, len(step.nodes)):
        raise NodeError(
            f"network {spec.name!r} ({spec.int_network}) has no room for {step.vm_count} VMs",
            hint="ask for fewer VMs, or have int-network enlarged in /etc/pcocc/networks.yaml",
        )
    ranks = [rank for rank in step.here.ranks if spec.name in sets[step.set_of(rank)]]
    taps = tuple(
        Tap(
            naming.tap_name(rank, index),
            rank,
            naming.vm_mac(spec.mac_prefix, rank, index),
            str(naming.vm_address(spec.int_network, rank)),
        )
        for rank in ranks
    )
    return NetworkPlan(
        spec=spec,
        index=index,
        bridge=naming.bridge_name(index),
        gateway_mac=naming.gateway_mac(index),
        tunnel_mac=naming.node_mac(step.index, index),
        gateway=str(naming.gateway_address(spec.int_network)),
        node_address=str(naming.node_address(spec.int_network, step.index)),
        vxlan=naming.vxlan_name(index),
        vni=naming.vxlan_vni(step.job),
        port=naming.vxlan_port(step.job, index),
        taps=taps,
        vms=step.vm_count,
        members=_find_members(step, spec.name, sets),
        nodes=step.nodes,
        node=step.index,
    )


def _find_members(step: BootStep, name: str, sets: Mapping[str, tuple[str, ...]]) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    first = 0
    for set_name, count in step.sets:
        if name in sets[set_name]:
            start = runs.pop()[0] if runs and runs[-1][1] == first - 1 else first
            runs.append((start, first + count - 1))
        first += count
    return tuple(runs)


def taps_of(plans: tuple[NetworkPlan, ...], rank: int) -> tuple[str, ...]:
    """Return the tap names of a VM in the order of its interfaces."""
    return tuple(tap.name for plan in plans for tap in plan.taps if tap.rank == rank)


def render_dnsmasq(plan: NetworkPlan, pid_file: str, user: str) -> str:
    """Return dnsmasq.conf(5) text that serves one network on one node: leases of its own VMs, names of all."""
    net, spec = plan.spec.int_network, plan.spec
    lines = [
        f"interface={plan.bridge}",
        "bind-interfaces",
        "except-interface=lo",
        f"pid-file={pid_file}",
        f"user={user}",
        "no-resolv",
        "no-hosts",
        "no-ping",
        "leasefile-ro",
        "dhcp-authoritative",
        f"listen-address={plan.gateway}",
        f"domain={spec.domain_name}",
        f"local=/{spec.domain_name}/",
        f"synth-domain={spec.domain_name},{naming.vm_address(net, 0)},{naming.vm_address(net, plan.vms - 1)},vm*",
        f"dhcp-range={net.network_address},static,{net.netmask},infinite",
        f"dhcp-option=option:router,{plan.gateway}",
        f"dhcp-option=option:dns-server,{plan.gateway}",
        f"dhcp-option=option:domain-search,{spec.domain_name}",
        f"dhcp-option=option:mtu,{spec.mtu}",
    ]
    lines += [f"dhcp-host={tap.mac},{tap.address},{naming.vm_name(tap.rank)},infinite" for tap in plan.taps]
    return "\n".join(lines) + "\n"

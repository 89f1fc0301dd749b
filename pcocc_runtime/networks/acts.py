"""A job's networks on a node as a list of acts: what root has nft, ip, bridge and the kernel do.

The job's namespace exists before, with lo as its only device. Walls (tables of nft) come before anything that
could pass them: those of the host's namespace before a tunnel, those of the job's namespace before a tap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.verdict import KVM_DEVICE
from pcocc_runtime.documents.work import Act, Nat
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import (
    call_filter,
    dnsmasq,
    host_bridges,
    nft_guard,
    nft_inside,
    nft_outside,
    routes,
)
from pcocc_runtime.networks.host_bridges import Bridge
from pcocc_runtime.networks.plan import Bridged, NetworkPlan, Routed, Segment, find_ways_out, interfaces_of

_BRIDGE_HOOKS = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")
_RESERVED = "0xfff8"  # BR_GROUPFWD_RESTRICTED of net/bridge/br_private.h forbids the other three bits
_ANY_GROUP = "0xfffd"  # of a port, LACP too; pause frames never pass (br_handle_frame in the kernel)
# a VXLAN entry for this address receives what has no entry of its own (bridge(8))
_FLOOD = "00:00:00:00:00:00"
# of taps: other users need CAP_NET_ADMIN to attach to one, whatever the mode of /dev/net/tun
_OWNER = 0


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the host is like: addresses of the job's nodes by name, its own as they see it, its bridges by name.

    With `queues`, its taps have several queues; with `tc`, it has tc(8). With `forwards`, it routes between all its
    interfaces; without, `closed` names the interfaces whose packets it does not route. `rules` are its routing
    rules as ip(8) shows them, `machine` is what uname(2) says.
    """

    forwards: bool = True
    closed: tuple[str, ...] = ()
    peers: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    rules: str = ""
    machine: str = "x86_64"
    bridges: Mapping[str, Bridge] = field(default_factory=dict)
    queues: bool = False
    tc: bool = False


def plan_acts(job: int, plans: Sequence[NetworkPlan], held: Nat | None, host: HostFacts) -> tuple[Act, ...]:
    """Return all acts that make a job's networks on a node; NodeError when the host is not fit for them."""
    made = tuple(plan for plan in plans if isinstance(plan, Routed) or plan.taps)
    return (
        *_walls(job, made, held, host), *_outside(job, made, held, host), *_inside(job, made, held, host),
        *_servers(made, host.machine),
    )


def _ip(inside: bool, lines: Iterator[str]) -> Iterator[Act]:
    text = "".join(f"{line}\n" for line in lines)
    if text:
        yield Act("ip", inside, text)


def _set(inside: bool, value: str, *names: str) -> Iterator[Act]:
    return (Act("sysctl", inside, value, name) for name in names)


def _walls(job: int, plans: tuple[NetworkPlan, ...], held: Nat | None, host: HostFacts) -> Iterator[Act]:
    """Yield the tables of the host's namespace, and after them what lets replies come back to VMs."""
    closed = host.closed if held else ()
    if closed and not all(plan.spec.manage_ip_forward for plan in find_ways_out(plans)):
        raise NodeError(
            f"this node does not forward IPv4 packets that arrive on {', '.join(closed)}, and"
            " manage-ip-forward is false",
            hint=(
                "set net.ipv4.ip_forward=1 on the node, or manage-ip-forward: true in"
                " /etc/pcocc/networks.yaml"
            ),
        )
    yield Act(
        "nft", False,
        nft_guard.render_guard() + nft_outside.render_host_table(job, plans, host.peers.values(), held),
    )
    for line, done in nft_guard.plan_rules(host.rules, None if host.forwards else closed):
        yield Act("ip", False, line, done)
    yield from _set(False, "1", *(f"ipv4/conf/{name}/forwarding" for name in closed))


def _outside(job: int, plans: tuple[NetworkPlan, ...], held: Nat | None, host: HostFacts) -> Iterator[Act]:
    """Yield what is made from the host's namespace: the tunnels, whose sockets stay there, and pairs of devices."""
    netns, uplink = naming.netns_name(job), naming.uplink_name(job)
    bridged = [plan for plan in plans if isinstance(plan, Bridged)]
    yield from _set(True, "1", "ipv6/conf/default/disable_ipv6")  # else ports of bridges send packets of their own
    # as systemd sets it: ping(8) has no capability any more
    yield from _set(True, "0\t2147483647", "ipv4/ping_group_range")
    lines = [_tunnel(plan, netns, host.source) for plan in plans if not isinstance(plan, Bridged)]
    if held:
        mtu = max(plan.spec.mtu for plan in plans)
        lines.append(
            f"link add {uplink} mtu {mtu} type veth peer name {naming.UPLINK} mtu {mtu} netns {netns}"
        )
    lines += [
        line
        for plan in bridged
        for line in host_bridges.render_bridge_port(plan, netns, host.bridges[plan.spec.host_bridge])
    ]
    yield from _ip(False, iter(lines))
    vlans = "".join(host_bridges.render_vlans(plan, host.bridges[plan.spec.host_bridge]) for plan in bridged)
    if vlans:
        yield Act("bridge", False, vlans)
    yield from _set(False, "1", *(f"ipv6/conf/{plan.host_port}/disable_ipv6" for plan in bridged))
    # nothing passes before its VLANs are right
    yield from _ip(False, (f"link set {plan.host_port} up" for plan in bridged))
    if held:
        # 127.0.0.1:PORT of the node leads to a VM too
        local = ["ipv4/conf/{}/route_localnet"] if held.forwards else []
        names = ["ipv6/conf/{}/disable_ipv6", "ipv4/conf/{}/forwarding", *local]
        yield from _set(False, "1", *(name.format(uplink) for name in names))
        here, _there = addressing.uplink_addresses(held.slot)
        yield from _ip(False, iter([f"link set {uplink} up", f"addr add {here}/31 dev {uplink}"]))


def _tunnel(plan: Routed | Segment, netns: str, source: str | None) -> str:
    mac, learning = (
        (f"address {plan.wire_mac} ", "nolearning") if isinstance(plan, Routed) else ("", "learning")
    )
    local = f"local {source} " if source else ""
    return (
        f"link add {plan.wire} {mac}netns {netns} type vxlan id {plan.vni} dstport {plan.port}"
        f" {local}{learning}"
    )


def _inside(job: int, plans: tuple[NetworkPlan, ...], held: Nat | None, host: HostFacts) -> Iterator[Act]:
    """Yield what is made in the job's namespace: walls, then devices, their settings, and ways to the peers."""
    # only the table of family bridge judges bridged frames
    yield from _set(True, "0", *(f"bridge/{name}" for name in _BRIDGE_HOOKS))
    yield Act("nft", True, nft_inside.render_firewall(job, plans, held))
    yield from _ip(True, _devices(plans, host.queues))
    if host.queues and host.tc:
        # Else each of a tap's 256 possible queues gets a qdisc of its own, with memory for 1,500 packets, as the tap
        # comes up. The tap keeps packets in queues of QEMU's anyway, and has no need of others (drivers/net/tun.c).
        lines = [f"qdisc replace dev {tap.name} root noqueue\n" for plan in plans for tap in plan.taps]
        yield Act("tc", True, "".join(lines))
    yield from _ip(True, _tap_ports(plans))
    for plan in plans:
        if isinstance(plan, Routed):
            yield from _settings(plan)
    entries = "".join(_forwarding(plan, host.peers) for plan in plans)
    if entries:
        yield Act("bridge", True, entries)
    if held:
        here, there = addressing.uplink_addresses(held.slot)
        yield from _set(True, "1", "ipv4/ip_forward", f"ipv6/conf/{naming.UPLINK}/disable_ipv6")
        up = [f"link set {naming.UPLINK} up", f"addr add {there}/31 dev {naming.UPLINK}"]
        yield from _ip(True, iter([*up, f"route replace default via {here} dev {naming.UPLINK}"]))
    text = "".join(routes.render_routes(plan) for plan in plans if isinstance(plan, Routed))
    if text:
        yield Act("ip", True, text)


def _devices(plans: tuple[NetworkPlan, ...], queues: bool) -> Iterator[str]:
    yield "link set lo up"  # dnsmasq and ping to oneself want it
    for plan in plans:
        group = f" group_fwd_mask {_RESERVED}" if isinstance(plan, Segment) else ""
        yield f"link add {plan.bridge} address {plan.bridge_mac} type bridge{group}"
        yield f"link set {plan.bridge} mtu {plan.spec.mtu} up"
        if isinstance(plan, Routed):
            for address in (plan.gateway, plan.node_address):
                yield f"addr add {address}/{plan.prefix_length} dev {plan.bridge}"
            yield f"link set {plan.wire} mtu {plan.spec.mtu} up"
        else:
            # the pair of a host's bridge has that bridge's MTU
            mtu = f" mtu {plan.spec.mtu}" if isinstance(plan, Segment) else ""
            yield f"link set {plan.wire}{mtu} master {plan.bridge} up"
        yield from _taps(plan, " multi_queue" if queues else "")
        if isinstance(plan, Segment):
            yield f"link set {plan.wire} type bridge_slave group_fwd_mask {_ANY_GROUP}"


def _taps(plan: NetworkPlan, queues: str) -> Iterator[str]:
    return (f"tuntap add dev {tap.name} mode tap user {_OWNER} vnet_hdr{queues}" for tap in plan.taps)


def _tap_ports(plans: tuple[NetworkPlan, ...]) -> Iterator[str]:
    for plan in plans:
        for tap in plan.taps:
            yield f"link set {tap.name} mtu {plan.spec.mtu} master {plan.bridge} up"
            if isinstance(plan, Segment):
                yield f"link set {tap.name} type bridge_slave group_fwd_mask {_ANY_GROUP}"


def _settings(plan: Routed) -> Iterator[Act]:
    """Yield settings: the bridge answers for all VMs elsewhere, and the tunnel routes to their nodes."""
    yield from _set(True, "1", f"ipv4/conf/{plan.bridge}/proxy_arp", f"ipv4/conf/{plan.bridge}/forwarding")
    yield from _set(
        True, "0", f"ipv4/conf/{plan.bridge}/send_redirects", f"ipv4/neigh/{plan.bridge}/proxy_delay"
    )
    yield from _set(True, "1", f"ipv4/conf/{plan.wire}/forwarding")
    if plan.network6:
        yield from _set(True, "1", "ipv6/conf/all/forwarding")
        for name in (plan.bridge, plan.wire):
            # 1 is none: the batch of routes adds the addresses
            yield from _set(True, "1", f"ipv6/conf/{name}/addr_gen_mode")
            yield from _set(True, "0", f"ipv6/conf/{name}/accept_dad", f"ipv6/conf/{name}/disable_ipv6")


def _forwarding(plan: NetworkPlan, peers: Mapping[str, str]) -> str:
    if isinstance(plan, Routed):
        return routes.render_forwarding(plan, peers)
    if isinstance(plan, Segment):  # a frame for an unknown MAC goes to every peer
        others = [peers[node.name] for _index, node in plan.members.peers() if plan.members.ranks_of(node)]
        return "".join(f"fdb append {_FLOOD} dev {plan.wire} dst {peer}\n" for peer in others)
    return ""


def _servers(plans: tuple[NetworkPlan, ...], machine: str) -> Iterator[Act]:
    routed = [plan for plan in plans if isinstance(plan, Routed)]
    for plan in routed:
        text = dnsmasq.render_dnsmasq(plan, [other for other in routed if other is not plan])
        yield Act("dnsmasq", True, text, str(plan.index), call_filter.plan_call_filter(machine).hex())


def render_taps(step: BootStep, plans: tuple[NetworkPlan, ...], sets: Mapping[str, tuple[str, ...]]) -> str:
    """Return what the plugin reads: the taps of each VM of this node, eth0's first."""
    names = {
        rank: ",".join(tap.name for _plan, tap in interfaces_of(plans, step, sets, rank))
        for rank in step.here.ranks
    }
    return "".join(f"tap {rank} {taps}\n" for rank, taps in names.items())


def render_devices(accel: str, queues: int, vhost: bool) -> str:
    """Return what the plugin reads: how many queues of a tap may be opened, and which devices it hands over.

    An emulated guest is no faster with /dev/vhost-net.
    """
    several = f"queues {queues}\n" if queues > 1 else ""
    kvm = f"kvm {KVM_DEVICE}\n" if accel == "kvm" else ""
    return several + kvm + ("vhost /dev/vhost-net\n" if accel == "kvm" and vhost else "")

"""A job's networks on a node: its namespace with bridges, tunnels, taps, walls and a DHCP and DNS server for each.

Every create may be repeated; removing.py is the way back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING

from pcocc_runtime import naming
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import boundary, dnsmasq, host_bridges, nat, removing, routes
from pcocc_runtime.networks.plan import HostPort, NetworkPlan
from pcocc_runtime.system import files, process, sysctl

if TYPE_CHECKING:
    from pcocc_runtime.networks.netlink import JobNetns

_IPROUTE = "install the package iproute2"
_ANY_GROUP = "type bridge_slave group_fwd_mask 0xfffd"  # LACP too; pause frames never pass (br_handle_frame in the kernel)


def make_networks(step: BootStep, plans: tuple[NetworkPlan, ...], held: nat.Nat | None) -> None:
    """Make all networks of a job, or what is missing of them; `held` is its way out of the namespace."""
    from pcocc_runtime.networks import netlink  # 0.1 s of import that `start` on an idle node does not need

    plans = tuple(plan for plan in plans if plan.is_routed or plan.taps)
    bridges = _find_bridges(step, plans)
    peers = {node.name: _resolve(node.name) for node in step.peers}
    source = _find_own(step.here.name) if peers else None
    name = naming.netns_name(step.job)
    boundary.ensure_outside(step.job, plans, peers.values(), held)
    with netlink.telling_refusals(), netlink.coming_back():
        netlink.ensure_netns(name)
        if held:
            boundary.ensure_uplink(step.job, plans, held)
        for plan in plans:
            if plan.host_port:
                _make_port(plan.host_port, plan.vxlan, name, bridges[plan.host_port.network.host_bridge])
        inside = netlink.JobNetns(name)
        try:
            boundary.ensure_inside(plans, held)
            inside.ensure_loopback()
            sysctl.write("ipv6/conf/default/disable_ipv6", "1")  # ports of a bridge would speak up on it
            for plan in plans:
                make = _make_routed if plan.is_routed else _make_segment
                make(inside, plan, peers, source)
        finally:
            inside.close()
        removing.end_dnsmasq(step.job)
        routed = [plan for plan in plans if plan.is_routed]
        for plan in routed:
            _start_dnsmasq(step.job, plan, [other for other in routed if other is not plan])


def _find_bridges(step: BootStep, plans: tuple[NetworkPlan, ...]) -> dict[str, host_bridges.Bridge]:
    """Return the host's bridges, once they are known to be fit for the plans."""
    if not any(plan.host_port for plan in plans):
        return {}
    bridges = host_bridges.parse_bridges(process.run(["ip", "-json", "-details", "link", "show", "type", "bridge"], hint=_IPROUTE))
    host_bridges.ensure_fit(plans, bridges, step.here.name)
    return bridges


def _make_port(port: HostPort, inner: str, netns: str, bridge: host_bridges.Bridge) -> None:
    """Put the job's port on a bridge of the host, or put it anew; nothing passes before its VLANs are right."""
    from pcocc_runtime.networks import netlink

    netlink.remove_link(port.name)
    process.run(["ip", "-batch", "-"], text=host_bridges.render_port(port, inner, netns, bridge), hint=_IPROUTE)
    vlans = host_bridges.render_vlans(port, bridge)
    if vlans:
        process.run(["bridge", "-batch", "-"], text=vlans, hint=_IPROUTE)
    sysctl.write(f"ipv6/conf/{port.name}/disable_ipv6", "1")
    process.run(["ip", "link", "set", port.name, "up"], hint=_IPROUTE)


def _make_routed(inside: JobNetns, plan: NetworkPlan, peers: dict[str, str], source: str | None) -> None:
    """Make an L3 network: a bridge of this node's VMs that answers for all others, and routes to their nodes."""
    mtu, length = plan.spec.mtu, plan.prefix_length
    inside.ensure_bridge(plan.bridge, plan.gateway_mac, mtu, [(plan.gateway, length), (plan.node_address, length)])
    for name, value in (("proxy_arp", "1"), ("send_redirects", "0"), ("forwarding", "1")):
        sysctl.write(f"ipv4/conf/{plan.bridge}/{name}", value)
    sysctl.write(f"ipv4/neigh/{plan.bridge}/proxy_delay", "0")
    inside.ensure_tunnel(plan.vxlan, plan.tunnel_mac, plan.vni, plan.port, mtu, source)
    sysctl.write(f"ipv4/conf/{plan.vxlan}/forwarding", "1")
    if plan.network6:
        sysctl.write("ipv6/conf/all/forwarding", "1")
        for name in (plan.bridge, plan.vxlan):
            sysctl.write(f"ipv6/conf/{name}/addr_gen_mode", "1")  # none: the addresses are given below
            sysctl.write(f"ipv6/conf/{name}/accept_dad", "0")
            sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "0")
    process.run(["bridge", "-batch", "-"], text=routes.render_forwarding(plan, peers), hint=_IPROUTE)
    process.run(["ip", "-batch", "-"], text=routes.render_routes(plan), hint=_IPROUTE)
    inside.ensure_taps(plan.bridge, [tap.name for tap in plan.taps], mtu)


def _make_segment(inside: JobNetns, plan: NetworkPlan, peers: dict[str, str], source: str | None) -> None:
    """Make an L2 network: a bridge and a tunnel that pass on any frame, and no address of ours."""
    private, mtu = plan.host_port is None, plan.spec.mtu
    inside.ensure_bridge(plan.bridge, plan.tunnel_mac, mtu, [], reserved=private)
    if private:
        others = [peers[node.name] for _index, node in plan.peers() if plan.ranks_of(node)]
        inside.ensure_segment(plan.vxlan, plan.bridge, plan.vni, plan.port, mtu, others, source)
    else:
        inside.ensure_port(plan.vxlan, plan.bridge)
    taps = [tap.name for tap in plan.taps]
    inside.ensure_taps(plan.bridge, taps, mtu)
    if private:
        text = "".join(f"link set dev {name} {_ANY_GROUP}\n" for name in (plan.vxlan, *taps))
        process.run(["ip", "-batch", "-"], text=text, hint=_IPROUTE)


def _start_dnsmasq(job: int, plan: NetworkPlan, others: Iterable[NetworkPlan]) -> None:
    base = naming.STATE_DIR / f"{job}.dnsmasq{plan.index}"
    text = dnsmasq.render_dnsmasq(plan, others, f"{base}.pid", removing.DNSMASQ_USER)
    files.replace_file(PurePath(f"{base}.conf"), text.encode())
    process.run(["dnsmasq", f"--conf-file={base}.conf"], hint="install the package dnsmasq-base")


def _resolve(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_DGRAM)[0][4][0])
    except OSError:
        raise NodeError(
            f"{os.uname().nodename} cannot resolve the name of the job's node {name}",
            hint="each NodeName of slurm.conf must be in DNS or /etc/hosts of every node",
        ) from None


def _find_own(name: str) -> str | None:
    """Return the address the job's other nodes expect this one's packets from, None when it is not known here.

    A node often has its own name in /etc/hosts, as 127.0.1.1; then the kernel chooses by the route to the peer.
    """
    address = _resolve(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return None
    return None if address.startswith("127.") else address

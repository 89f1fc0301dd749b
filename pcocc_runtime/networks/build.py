"""A job's networks on a node: its namespace with bridges, tunnels, taps, walls and a DHCP and DNS server for each.

Every create may be repeated, every removal run twice.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING

from pcocc_runtime import naming
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import boundary, dnsmasq, host_bridges, nat, routes
from pcocc_runtime.networks.plan import Bridged, NetworkPlan, Routed, Segment
from pcocc_runtime.system import files, process, sysctl

if TYPE_CHECKING:
    from pcocc_runtime.networks.netlink import JobNetns

_IPROUTE = "install the package iproute2"
_DOOMED = 0x70636F63  # the group of devices that are deleted at once
_ANY_GROUP = "type bridge_slave group_fwd_mask 0xfffd"  # LACP too; pause frames never pass (br_handle_frame in the kernel)


def make_networks(step: BootStep, plans: tuple[NetworkPlan, ...], held: nat.Nat | None) -> None:
    """Make all networks of a job, or what is missing of them; `held` is its way out of the namespace."""
    from pcocc_runtime.networks import netlink  # 0.1 s of import that `start` on an idle node does not need

    plans = tuple(plan for plan in plans if isinstance(plan, Routed) or plan.taps)
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
            if isinstance(plan, Bridged):
                _make_port(plan, name, bridges[plan.spec.host_bridge])
        inside = netlink.JobNetns(name)
        try:
            boundary.ensure_inside(plans, held)
            inside.ensure_loopback()
            sysctl.write("ipv6/conf/default/disable_ipv6", "1")  # ports of a bridge would speak up on it
            for plan in plans:
                match plan:
                    case Routed():
                        _make_routed(inside, plan, peers, source)
                    case Segment():
                        _make_segment(inside, plan, peers, source)
                    case Bridged():
                        _make_bridged(inside, plan)
        finally:
            inside.close()
        _end_dnsmasq(step.job)
        routed = [plan for plan in plans if isinstance(plan, Routed)]
        for plan in routed:
            _start_dnsmasq(step.job, plan, [other for other in routed if other is not plan])


def _find_bridges(step: BootStep, plans: tuple[NetworkPlan, ...]) -> dict[str, host_bridges.Bridge]:
    """Return the host's bridges, once they are known to be fit for the plans."""
    if not any(isinstance(plan, Bridged) for plan in plans):
        return {}
    bridges = host_bridges.parse_bridges(process.run(["ip", "-json", "-details", "link", "show", "type", "bridge"], hint=_IPROUTE))
    host_bridges.ensure_fit(plans, bridges, step.here.name)
    return bridges


def _make_port(plan: Bridged, netns: str, bridge: host_bridges.Bridge) -> None:
    """Put the job's port on a bridge of the host, or put it anew; nothing passes before its VLANs are right."""
    from pcocc_runtime.networks import netlink

    netlink.remove_link(plan.host_port)
    process.run(["ip", "-batch", "-"], text=host_bridges.render_port(plan, netns, bridge), hint=_IPROUTE)
    vlans = host_bridges.render_vlans(plan, bridge)
    if vlans:
        process.run(["bridge", "-batch", "-"], text=vlans, hint=_IPROUTE)
    sysctl.write(f"ipv6/conf/{plan.host_port}/disable_ipv6", "1")
    process.run(["ip", "link", "set", plan.host_port, "up"], hint=_IPROUTE)


def _make_routed(inside: JobNetns, plan: Routed, peers: dict[str, str], source: str | None) -> None:
    """Make an L3 network: a bridge of this node's VMs that answers for all others, and routes to their nodes."""
    mtu, length = plan.spec.mtu, plan.prefix_length
    inside.ensure_bridge(plan.bridge, plan.bridge_mac, mtu, [(plan.gateway, length), (plan.node_address, length)])
    for name, value in (("proxy_arp", "1"), ("send_redirects", "0"), ("forwarding", "1")):
        sysctl.write(f"ipv4/conf/{plan.bridge}/{name}", value)
    sysctl.write(f"ipv4/neigh/{plan.bridge}/proxy_delay", "0")
    inside.ensure_tunnel(plan.wire, plan.wire_mac, plan.vni, plan.port, mtu, source)
    sysctl.write(f"ipv4/conf/{plan.wire}/forwarding", "1")
    if plan.network6:
        sysctl.write("ipv6/conf/all/forwarding", "1")
        for name in (plan.bridge, plan.wire):
            sysctl.write(f"ipv6/conf/{name}/addr_gen_mode", "1")  # none: the addresses are given below
            sysctl.write(f"ipv6/conf/{name}/accept_dad", "0")
            sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "0")
    process.run(["bridge", "-batch", "-"], text=routes.render_forwarding(plan, peers), hint=_IPROUTE)
    process.run(["ip", "-batch", "-"], text=routes.render_routes(plan), hint=_IPROUTE)
    inside.ensure_taps(plan.bridge, [tap.name for tap in plan.taps], mtu)


def _make_segment(inside: JobNetns, plan: Segment, peers: dict[str, str], source: str | None) -> None:
    """Make an L2 network: a bridge and a tunnel that pass on any frame, and no address of ours."""
    mtu, taps, members = plan.spec.mtu, [tap.name for tap in plan.taps], plan.members
    inside.ensure_bridge(plan.bridge, plan.bridge_mac, mtu, [], reserved=True)
    others = [peers[node.name] for _index, node in members.peers() if members.ranks_of(node)]
    inside.ensure_segment(plan.wire, plan.bridge, plan.vni, plan.port, mtu, others, source)
    inside.ensure_taps(plan.bridge, taps, mtu)
    text = "".join(f"link set dev {name} {_ANY_GROUP}\n" for name in (plan.wire, *taps))
    process.run(["ip", "-batch", "-"], text=text, hint=_IPROUTE)


def _make_bridged(inside: JobNetns, plan: Bridged) -> None:
    """Make a network on a bridge of the host: a bridge in here, too, whose way there is in place already."""
    inside.ensure_bridge(plan.bridge, plan.bridge_mac, plan.spec.mtu, [])
    inside.ensure_port(plan.wire, plan.bridge)
    inside.ensure_taps(plan.bridge, [tap.name for tap in plan.taps], plan.spec.mtu)


def _start_dnsmasq(job: int, plan: Routed, others: Iterable[Routed]) -> None:
    base = naming.STATE_DIR / f"{job}.dnsmasq{plan.index}"
    text = dnsmasq.render_dnsmasq(plan, others, f"{base}.pid", "nobody")
    files.replace_file(PurePath(f"{base}.conf"), text.encode())
    process.run(["dnsmasq", f"--conf-file={base}.conf"], hint="install the package dnsmasq-base")


def _end_dnsmasq(job: int) -> None:
    """End the servers in the job's namespace: one that a killed helper has just started has no PID file yet.

    One that is becoming a daemon forks twice, perhaps while we look: nothing is there when nothing was found twice in a row.
    """
    empty = 0
    for _ in range(8):
        found = process.find_in_netns(naming.netns_path(job), "dnsmasq")
        for one in found:
            process.kill(one)
        empty = 0 if found else empty + 1
        if empty == 2:
            return


def remove_networks(job: int) -> None:
    """End and delete everything in and around the job's namespace, but not the namespace."""
    path = naming.netns_path(job)
    built = os.path.exists(path)
    if os.path.ismount(path):  # else a helper was killed before it was
        try:
            _end_dnsmasq(job)
            _remove_links(path.name)
        except (NodeError, FileNotFoundError):
            if os.path.ismount(path):  # else what a killed helper had started has just deleted it
                raise
    try:
        boundary.remove_outside(job)
    except NodeError:
        if built:
            raise  # without a namespace it was nft that failed the set-up, and there is no table


def _remove_links(netns: str) -> None:
    """Delete every device but lo of a namespace, so that a process still inside keeps no tunnel alive.

    As a group, because the kernel waits for all its CPUs once for each request (unregister_netdevice_many). By ip(8), because
    pyroute2 takes longer to import than all this. Forced: a device goes by itself when its other end does.
    """
    names = _list_links(netns)
    if names:
        text = "".join(f"link set dev {name} group {_DOOMED}\n" for name in names) + f"link delete group {_DOOMED}\n"
        try:
            process.run(["ip", "-netns", netns, "-force", "-batch", "-"], text=text, hint=_IPROUTE)
        except NodeError:
            if _list_links(netns):
                raise


def _list_links(netns: str) -> list[str]:
    links = json.loads(process.run(["ip", "-json", "-netns", netns, "link", "show"], hint=_IPROUTE))
    return [link["ifname"] for link in links if link["ifname"] != "lo"]


def remove_netns(job: int) -> None:
    """Unmount and forget the job's namespace; what is left in it goes with its last process."""
    path = naming.netns_path(job)
    if os.path.exists(path):
        try:
            process.run(["ip", "netns", "delete", path.name], hint=_IPROUTE)
        except NodeError:
            if os.path.exists(path):  # else what a killed helper had started has just deleted it
                raise


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

"""nft text for the host's namespace: a job's own table there (the guard of all tunnels is in nft_guard.py).

A packet that these tables let pass is still judged by the site's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.work import Nat
from pcocc_runtime.networks.nft_guard import BEFORE_SITE
from pcocc_runtime.networks.nft_text import render_chain, render_set, render_table
from pcocc_runtime.networks.plan import NetworkPlan, Routed, Segment


def render_host_table(job: int, plans: tuple[NetworkPlan, ...], peers: Iterable[str], nat: Nat | None) -> str:
    """Return text that replaces the job's table; `peers` are the addresses of its other nodes."""
    body = [render_set("set", "peers", "type ipv4_addr", dict.fromkeys(peers))]
    received = [rule for plan in plans if isinstance(plan, Routed | Segment) for rule in _tunnel(plan)]
    if nat:
        received += [
            f'iifname "{naming.uplink_name(job)}" {rule}'
            for rule in ("ct state established,related accept", "drop")
        ]
    body.append(render_chain("input", f"type filter hook input {BEFORE_SITE}", received))
    if nat:
        body += [*_routed(job, nat), *_translated(job, nat)]
    return render_table("inet", naming.host_table(job), body)


def _tunnel(plan: Routed | Segment) -> list[str]:
    """Return rules that let this network's tunnel hear its peers only (VNI: RFC 7348, section 5)."""
    ours = f"udp dport {plan.port} @th,96,24 {plan.vni:#x}"
    return [f"{ours} meta nfproto ipv6 drop", f"{ours} ip saddr != @peers drop"]


def _routed(job: int, nat: Nat) -> list[str]:
    """Return the chains for packets between the job and other machines; packets between jobs are dropped.

    The job's end sends from an address that hosts refuse packets from, and only this table turns it into the true
    one. So when `nft flush ruleset` or the like removes these walls, nothing gets out any more.
    """
    mine = naming.uplink_name(job)
    _host, inside = addressing.uplink_addresses(nat.slot)
    rules = [
        f'iifname "{mine}" meta nfproto ipv6 drop', f'iifname "{mine}" ip saddr != {inside} drop',
        f'iifname "{mine}" oifname "{naming.HOST_UPLINKS}" drop',
        f'iifname "{mine}" ip daddr 169.254.0.0/16 drop',
        f'oifname "{mine}" ct state established,related accept', f'oifname "{mine}" ct status dnat accept',
        f'oifname "{mine}" drop',
    ]
    enter = f'iifname "{mine}" ip saddr {addressing.shut_address(inside)} ip saddr set {inside}'
    return [
        render_chain("forward", f"type filter hook forward {BEFORE_SITE}", rules),
        render_chain("enter", "type filter hook prerouting priority raw; policy accept", [enter]),
    ]


def _translated(job: int, nat: Nat) -> list[str]:
    """Return the chains that hide the job behind the node's address and lead its host ports in.

    Only the first packet of a connection is translated (SYN), so that no connection of the host is ever taken over.
    """
    _host, inside = addressing.uplink_addresses(nat.slot)
    mine = naming.uplink_name(job)
    away = f'ip saddr {inside} oifname != "{naming.HOST_UPLINKS}"'
    outward = [f"{away} meta l4proto {{ tcp, udp }} masquerade to :1024-65535", f"{away} masquerade"]
    inward = []
    if nat.forwards:
        outward.append(f'ip saddr 127.0.0.0/8 oifname "{mine}" masquerade')
        ports = ", ".join(str(one.host_port) for one in nat.forwards)
        first = "tcp flags & (fin | syn | rst | ack) == syn"
        inward = [
            f"meta nfproto ipv4 tcp dport {{ {ports} }} {first} fib daddr type local dnat ip to {inside}"
        ]
    return [
        render_chain("inward", "type nat hook prerouting priority dstnat; policy accept",
                     [f'iifname != "{naming.HOST_UPLINKS}" {rule}' for rule in inward]),
        render_chain("own", "type nat hook output priority -100; policy accept", inward),
        render_chain("outward", "type nat hook postrouting priority srcnat; policy accept", outward),
    ]  # fmt: skip

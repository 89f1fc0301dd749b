"""nft text for the host's namespace: the standing guard of all tunnels, and a table for each job.

No base chain here accepts for good: a packet these tables let pass is still judged by the site's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from pcocc_runtime import naming
from pcocc_runtime.networks.nat import Nat
from pcocc_runtime.networks.nft_text import render_chain, render_set, render_table
from pcocc_runtime.networks.plan import NetworkPlan

TUNNEL_TABLE = "pcocc"
_BEFORE_SITE = "priority filter - 5; policy accept"


def render_guard(narrow: Iterable[str] | None) -> str:
    """Return text for the standing table; it may be applied again at any time and keeps its set of interfaces.

    The kernel's tunnels send without a socket of this namespace, so `meta skuid`, which needs one, matches what processes
    send. Packets of tunnels are not tracked: a VM could fill the host's table of connections with its inner ones.
    `narrow` names interfaces that route for us alone, since nobody else has asked; None: the host is a router anyway.
    """
    lines = [f"add table inet {TUNNEL_TABLE}", f"add set inet {TUNNEL_TABLE} narrow {{ type ifname; }}"]
    if narrow is None:
        lines.append(f"flush set inet {TUNNEL_TABLE} narrow")
    else:
        lines += [f'add element inet {TUNNEL_TABLE} narrow {{ "{name}" }}' for name in narrow]
    tunnels = f"udp dport {naming.TUNNEL_PORTS}"
    sent = [f"{tunnels} meta skuid 0-4294967295 drop", f"{tunnels} notrack"]
    chains = {
        "sent": ("filter hook output priority raw; policy accept", sent),
        "received": ("filter hook prerouting priority raw; policy accept", sent[1:]),
        "forwarded": (
            f"filter hook forward {_BEFORE_SITE}",
            [f"{tunnels} drop", f'iifname @narrow oifname != "{naming.HOST_UPLINKS}" drop'],
        ),
    }
    for name, (hook, rules) in chains.items():
        lines += [f"add chain inet {TUNNEL_TABLE} {name} {{ type {hook}; }}", f"flush chain inet {TUNNEL_TABLE} {name}"]
        lines += [f"add rule inet {TUNNEL_TABLE} {name} {rule}" for rule in rules]
    return "\n".join(lines) + "\n"


def render_host(job: int, plans: tuple[NetworkPlan, ...], peers: Iterable[str], nat: Nat | None) -> str:
    """Return text that replaces the job's table; `peers` are the addresses of its other nodes."""
    body = [render_set("set", "peers", "type ipv4_addr", dict.fromkeys(peers))]
    received = [rule for plan in plans for rule in _tunnel(plan)]
    if nat:
        received += [f'iifname "{naming.uplink_name(job)}" {rule}' for rule in ("ct state established,related accept", "drop")]
    body.append(render_chain("input", f"type filter hook input {_BEFORE_SITE}", received))
    if nat:
        body += [*_routed(job, nat), *_translated(job, nat)]
    return render_table("inet", naming.host_table(job), body)


def _tunnel(plan: NetworkPlan) -> list[str]:
    """Return rules that let this network's tunnel hear its peers only (VNI: RFC 7348, section 5)."""
    ours = f"udp dport {plan.port} @th,96,24 {plan.vni:#x}"
    return [f"{ours} meta nfproto ipv6 drop", f"{ours} ip saddr != @peers drop"]


def _routed(job: int, nat: Nat) -> list[str]:
    """Return the chains for packets between the job and other machines; what goes between jobs is dropped."""
    mine = naming.uplink_name(job)
    _host, inside = naming.uplink_addresses(nat.slot)
    rules = [
        f'iifname "{mine}" meta nfproto ipv6 drop',
        f'iifname "{mine}" ip saddr != {inside} drop',
        f'iifname "{mine}" oifname "{naming.HOST_UPLINKS}" drop',
        f'iifname "{mine}" ip daddr 169.254.0.0/16 drop',
        f'oifname "{mine}" ct state established,related accept',
        f'oifname "{mine}" ct status dnat accept',
        f'oifname "{mine}" drop',
    ]
    return [render_chain("forward", f"type filter hook forward {_BEFORE_SITE}", rules)]


def _translated(job: int, nat: Nat) -> list[str]:
    """Return the chains that hide the job behind the node's address and lead its host ports in.

    Only the first packet of a connection is translated (SYN), so that no connection of the host is ever taken over.
    """
    _host, inside = naming.uplink_addresses(nat.slot)
    mine = naming.uplink_name(job)
    away = f'ip saddr {inside} oifname != "{naming.HOST_UPLINKS}"'
    outward = [f"{away} meta l4proto {{ tcp, udp }} masquerade to :1024-65535", f"{away} masquerade"]
    inward = []
    if nat.forwards:
        outward.append(f'ip saddr 127.0.0.0/8 oifname "{mine}" masquerade')
        ports = ", ".join(str(one.host_port) for one in nat.forwards)
        first = "tcp flags & (fin | syn | rst | ack) == syn"
        inward = [f"meta nfproto ipv4 tcp dport {{ {ports} }} {first} fib daddr type local dnat ip to {inside}"]
    return [
        render_chain("inward", "type nat hook prerouting priority dstnat; policy accept",
                     [f'iifname != "{naming.HOST_UPLINKS}" {rule}' for rule in inward]),
        render_chain("own", "type nat hook output priority -100; policy accept", inward),
        render_chain("outward", "type nat hook postrouting priority srcnat; policy accept", outward),
    ]  # fmt: skip

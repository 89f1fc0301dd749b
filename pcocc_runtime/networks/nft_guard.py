"""nft text for the standing guard of all tunnels, which is in the host's namespace as long as the node runs."""

from __future__ import annotations

from collections.abc import Iterable

from pcocc_runtime import naming

TUNNEL_TABLE = "pcocc"
BEFORE_SITE = "priority filter - 5; policy accept"  # no base chain of ours accepts for good: the site's own still judge


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
            f"filter hook forward {BEFORE_SITE}",
            [f"{tunnels} drop", f'iifname @narrow oifname != "{naming.HOST_UPLINKS}" drop'],
        ),
    }
    for name, (hook, rules) in chains.items():
        lines += [f"add chain inet {TUNNEL_TABLE} {name} {{ type {hook}; }}", f"flush chain inet {TUNNEL_TABLE} {name}"]
        lines += [f"add rule inet {TUNNEL_TABLE} {name} {rule}" for rule in rules]
    return "\n".join(lines) + "\n"

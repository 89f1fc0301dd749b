"""The standing guard of all tunnels, in the host's namespace as long as the node runs.

nft text for what processes send, and rules of routing (ip-rule(8)) for what the node forwards.
Routing, because it never sees what enters and leaves by the same bridge, which nft does where br_netfilter is
loaded; and because `nft flush ruleset` leaves it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pcocc_runtime import naming

TUNNEL_TABLE = "pcocc"
BEFORE_SITE = "priority filter - 5; policy accept"  # no base chain of ours accepts for good: the site's own still judge
_FIRST = naming.VXLAN_PORT_BASE  # of our priorities: behind those of local addresses, before main's
_NARROW = _FIRST + 4
_RULES = (  # what the node forwards to the ports of tunnels goes nowhere; what it sends itself is the table's to judge
    f"iif lo goto {_FIRST + 2}",
    f"ipproto udp dport {naming.TUNNEL_PORTS} blackhole",
    "nop",
    f"to {naming.UPLINK_NETWORK} lookup main",
)


def render_guard() -> str:
    """Return text for the standing table; it may be applied again at any time.

    The kernel's tunnels send without a socket of this namespace, so `meta skuid`, which needs one, matches
    what processes send. Packets of tunnels are not tracked: a VM could fill the host's table of connections
    with its inner ones.
    """
    tunnels = f"udp dport {naming.TUNNEL_PORTS}"
    chains = {
        "sent": ("output", [f"{tunnels} meta skuid 0-4294967295 drop", f"{tunnels} notrack"]),
        "received": ("prerouting", [f"{tunnels} notrack"]),
    }
    text = f"add table inet {TUNNEL_TABLE}\ndelete table inet {TUNNEL_TABLE}\nadd table inet {TUNNEL_TABLE}\n"
    for name, (hook, rules) in chains.items():
        text += f"add chain inet {TUNNEL_TABLE} {name} {{ type filter hook {hook} priority raw; policy accept; }}\n"
        text += "".join(f"add rule inet {TUNNEL_TABLE} {name} {rule}\n" for rule in rules)
    return text


def plan_rules(shown: str, narrow: Iterable[str] | None) -> list[tuple[str, str]]:
    """Return lines for ip(8) that add those of our rules that `ip -json rule show` has not shown.

    `narrow` names interfaces that route for us alone, since nobody else has asked: what comes in by them and
    is not for VMs goes nowhere, now and later; None: the host is a router anyway, and nothing is narrow any
    more. They are `protocol kernel` since systemd-networkd removes all others that it has not made. Two jobs may
    find the same rules missing at once, and both add them: with each is what the kernel then answers, no error.
    """
    there = [(one.get("priority"), one.get("iif")) for one in json.loads(shown or "[]")]
    new = [
        f"{number} {rule}"
        for number, rule in enumerate(_RULES, _FIRST)
        if number not in [priority for priority, _name in there]
    ]
    if narrow is not None:
        new += [f"{_NARROW} iif {name} blackhole" for name in narrow if (_NARROW, name) not in there]
    gone = [name for priority, name in there if priority == _NARROW and narrow is None]
    return [
        *((f"rule add pref {rule} protocol kernel\n", "File exists") for rule in new),
        *((f"rule del pref {_NARROW} iif {name}\n", "No such file") for name in gone),
    ]


def list_narrow(shown: str) -> list[str]:
    """Return the interfaces that route for us alone, of rules as above."""
    return [one["iif"] for one in json.loads(shown or "[]") if one.get("priority") == _NARROW]


def render_rules_removal(shown: str) -> str:
    """Return an ip(8) batch that deletes our rules, of those that are shown."""
    ours = [one for one in json.loads(shown or "[]") if _FIRST <= one.get("priority", 0) <= _NARROW]
    return "".join(f"rule del pref {one['priority']}{_of(one)}\n" for one in ours)


def _of(rule: dict[str, Any]) -> str:
    return f" iif {rule['iif']}" if rule["priority"] == _NARROW else ""

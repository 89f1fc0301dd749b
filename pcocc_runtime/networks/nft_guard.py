"""The standing guard of all tunnels, in the host's namespace as long as the node runs.

A table of nft judges packets that processes send; routing rules (ip-rule(8)) judge packets that the node forwards.
They are routing rules because nft would also see frames that only cross a bridge, where br_netfilter is loaded,
and because `nft flush ruleset` leaves them in place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pcocc_runtime import naming

TUNNEL_TABLE = "pcocc"
BEFORE_SITE = "priority filter - 5; policy accept"  # a packet that our chains accept is still judged by the site's
_FIRST = naming.VXLAN_PORT_BASE  # our first rule's priority: after local addresses' rule, before main's
_NARROW = _FIRST + 4
_RULES = (  # packets forwarded to the ports of tunnels go nowhere; the table judges those that the node sends itself
    f"iif lo goto {_FIRST + 2}",
    f"ipproto udp dport {naming.TUNNEL_PORTS} blackhole",
    "nop",
    f"to {naming.UPLINK_NETWORK} lookup main",
)


def render_guard() -> str:
    """Return text for the standing table; it may be applied again at any time.

    The kernel's tunnels send without a socket of this namespace, and `meta skuid` needs one: so it matches only
    what processes send. Packets of tunnels are not tracked: with connections of its own, a VM could otherwise
    fill the host's table of connections.
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

    `narrow` names interfaces that route only because pcocc made them: packets that come in there and are not for
    VMs go nowhere. With None, the host is a router anyway, and such rules are deleted. Rules are `protocol kernel`
    because systemd-networkd removes those of other protocols that it has not made. Two jobs may find the same
    rule missing and both add it: each line comes with the kernel's answer to the second, which is not an error.
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
    """Return the interfaces that route for pcocc alone, from the output of `ip -json rule show`."""
    return [one["iif"] for one in json.loads(shown or "[]") if one.get("priority") == _NARROW]


def render_rules_removal(shown: str) -> str:
    """Return an ip(8) batch that deletes our rules among those shown."""
    ours = [one for one in json.loads(shown or "[]") if _FIRST <= one.get("priority", 0) <= _NARROW]
    return "".join(f"rule del pref {one['priority']}{_of(one)}\n" for one in ours)


def _of(rule: dict[str, Any]) -> str:
    return f" iif {rule['iif']}" if rule["priority"] == _NARROW else ""

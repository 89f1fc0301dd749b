"""What programs and files of a node say, parsed for its check."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pcocc_runtime import naming
from pcocc_runtime.check.seen import Chain
from pcocc_runtime.networks.nft_guard import TUNNEL_TABLE

# what a rule names that lets our packets by
_OURS = {"forward": naming.OWN_PREFIX, "input": str(naming.VXLAN_PORT_BASE)}
_KEYS = (("family", "family"), ("table", "table"), ("chain", "name"))  # of a rule, and of its chain
# statements of libnftables-json(5); iptables-nft's own are `xt`, by the name of its target
_DROPS = frozenset(("drop", "reject", "xt DROP", "xt REJECT"))
_NO_QUESTIONS = frozenset(("counter", "log", "xt LOG", "xt NFLOG"))


def parse_plugstack(text: str) -> list[tuple[str, str]]:
    """Return the lines of plugstack.conf as (`include`, pattern) and (`plugin`, path) (spank(8))."""
    found = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) >= 2 and words[0] == "include":
            found.append(("include", words[1]))
        elif len(words) >= 2 and words[0] in ("required", "optional"):
            found.append(("plugin", words[1]))
    return found


def parse_mapped(maps: str, name: str) -> list[tuple[int, str]]:
    """Return inode and path of what is mapped in a process under a file name, from /proc/PID/maps (proc(5))."""
    rows = (line.split(maxsplit=5) for line in maps.splitlines())
    paths = ((int(row[4]), row[5]) for row in rows if len(row) == 6)
    return [
        (inode, path) for inode, path in paths if path.removesuffix(" (deleted)").rpartition("/")[2] == name
    ]


def parse_hierarchies(mountinfo: str) -> frozenset[str]:
    """Return the mounted versions of cgroups, by /proc/self/mountinfo: v1 only where it has controllers."""
    found = set()
    for line in mountinfo.splitlines():
        place, _, source = line.partition(" - ")
        kind, _device, options = [*source.split(), "", "", ""][:3]
        if not place.split()[4:5] or not place.split()[4].startswith("/sys/fs/cgroup"):
            continue
        if kind == "cgroup2":
            found.add("v2")
        elif kind == "cgroup" and "name=" not in options:
            found.add("v1")
    return frozenset(found)


def parse_old_groups(groups: str) -> tuple[str, ...]:
    """Return the hierarchies of version 1 in /proc/PID/cgroup, by their controllers or names (cgroups(7))."""
    return tuple(re.findall(r"(?m)^[1-9]\d*:([^:\n]+):", groups))


def is_unified(mountinfo: str) -> bool:
    """Tell whether version 2 is mounted at /sys/fs/cgroup itself, where Slurm then takes cgroup/v2 by itself."""
    return re.search(r"(?m)^(\S+ ){4}/sys/fs/cgroup .* - cgroup2 ", mountinfo) is not None


def parse_tables(text: str) -> tuple[str, ...]:
    """Return the tables of `nft list tables` as FAMILY NAME."""
    return tuple(re.findall(r"(?m)^table (\S+ \S+)$", text))


def parse_chains(text: str) -> tuple[Chain, ...]:
    """Return the site's chains that drop forwarded or incoming IPv4 which no rule takes, from `nft -j list ruleset`."""
    rows = json.loads(text)["nftables"]
    chains = (row["chain"] for row in rows if "chain" in row)
    rules = [row["rule"] for row in rows if "rule" in row]
    found = []
    for one in chains:
        if one.get("hook") not in _OURS or one["family"] not in ("ip", "inet") or _is_ours(one["table"]):
            continue
        by_policy = one.get("policy") == "drop"
        if by_policy or _is_closed(one, rules):
            place = f"{one['family']} {one['table']} {one['name']}"
            found.append(Chain(place, one["hook"], _lets_ours(one, rules), by_rule=not by_policy))
    return tuple(found)


def _is_closed(chain: dict[str, str], rules: Iterable[dict[str, Any]]) -> bool:
    """Tell whether a rule of a chain's own drops or rejects all that comes to it, as the last ones of firewalld do."""
    own = (one["expr"] for one in rules if all(one[key] == chain[name] for key, name in _KEYS))
    return any(_takes_all(expression) for expression in own)


def _takes_all(expression: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a rule drops or rejects, and asks for nothing before that."""
    words = {
        f"xt {(value or {}).get('name')}" if key == "xt" else key for part in expression for key, value in part.items()
    }
    return bool(words & _DROPS) and words <= _DROPS | _NO_QUESTIONS


def _is_ours(table: str) -> bool:
    return table == TUNNEL_TABLE or table.startswith(f"{TUNNEL_TABLE}-")


def _lets_ours(chain: dict[str, str], rules: Iterable[dict[str, Any]]) -> bool:
    """Tell whether any rule of a chain's table, which the chain may jump to, names what is ours."""
    own = (one for one in rules if (one["family"], one["table"]) == (chain["family"], chain["table"]))
    return any(_OURS[chain["hook"]] in json.dumps(one["expr"]) for one in own)

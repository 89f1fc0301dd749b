"""What is seen of a node's way to others: names, what forwards, and the tables of nft."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath

from pcocc_runtime import naming
from pcocc_runtime.check import seen, texts
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.nft_guard import plan_rules
from pcocc_runtime.slurm.commands import resolve_host
from pcocc_runtime.system import installed, process, regular, sysctl

_AT_ONCE = 32  # names that are asked for


def read_host_names(nodes: tuple[str, ...]) -> seen.Names:
    """Return which of the nodes' names lead to an address here."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(resolve_host, nodes))
    return seen.Names(
        nodes, tuple(name for name, address in zip(nodes, found, strict=True) if address is None)
    )


def read_walls() -> seen.Walls:
    """Return what forwards here, and which tables stand."""
    names = [name for name in sysctl.list_routing_interfaces() if not name.startswith(naming.OWN_PREFIX)]
    tables: tuple[str, ...] = ()
    trouble, unguarded = "", False
    forwards = sysctl.read("ipv4/ip_forward") == "1"
    try:
        tables = texts.parse_tables(process.run(["nft", "list", "tables"]))
        missing = plan_rules(process.run(["ip", "-json", "rule", "show"]), None if forwards else ())
        unguarded = any(line.startswith("rule add") for line, _done in missing)
    except (NodeError, ValueError) as error:
        trouble = str(error)
    return seen.Walls(
        forwards=forwards,
        open=tuple(name for name in names if sysctl.read(f"ipv4/conf/{name}/forwarding") == "1"),
        tables=tables,
        jobs=_list_jobs(),
        mend=f"{installed.LIBEXEC}/node start",
        unguarded=unguarded,
        trouble=trouble,
    )


def _list_jobs() -> tuple[int, ...]:
    """Return the jobs that have a network namespace here."""
    prefix = naming.netns_path(1).name.removesuffix("1")
    names = os.listdir(naming.NETNS_DIR) if os.path.isdir(naming.NETNS_DIR) else []
    return tuple(
        sorted(
            int(match[1])
            for name in names
            if (match := re.fullmatch(rf"{re.escape(prefix)}([1-9][0-9]*)", name))
        )
    )


def read_filter() -> seen.Filter:
    """Return which chains of the site's drop what no rule takes, and whether there are rules that nft does not list."""
    legacy = regular.read_start(PurePath("/proc/net/ip_tables_names"), 4096) or b""
    names = tuple(legacy.decode(errors="replace").split())
    try:
        return seen.Filter(texts.parse_chains(process.run(["nft", "--json", "list", "ruleset"])), legacy=names)
    except (NodeError, ValueError, LookupError) as error:
        return seen.Filter((), str(error), names)

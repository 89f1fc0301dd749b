"""What an InfiniBand fabric's subnet manager must be told once: a partition for every key of a pool, and its members.

opensm reads a file (doc/partition-config.txt of its sources). If it cannot read a single line, it drops all partitions
and makes every port of the fabric a full member of the default one. So the installed file is checked: pcocc's lines are
compared with those printed here, and the site's lines are read as opensm reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from pcocc_runtime.addressing import partition_guid
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.networks.infiniband import DEFAULT_KEY
from pcocc_runtime.networks.kinds import InfinibandNetwork

_A_LINE = 100  # GUIDs in a line; opensm reads up to 4,095 characters at a time
_BEGIN, _END = "# pcocc's partitions begin", "# pcocc's partitions end"


def render_opensm(networks: Sequence[InfinibandNetwork]) -> Iterator[str]:
    """Yield the lines for opensm's file of partitions, which belong after the site's own lines.

    A key's VMs are full members of its partition, which is the first in their tables, and limited members of the
    default partition, whatever earlier lines say.
    """
    yield _BEGIN
    for network in networks:
        yield (
            f"# network {network.name}: keys {network.min_pkey:#06x} to {network.max_pkey:#06x},"
            f" {network.max_vms} VMs each"
        )
        for key in network.keys:
            for some in _batches(network, key):
                yield (
                    f"pcocc_{key:04x}={key:#06x}, ipoib, indx0, defmember=full :"
                    f" {', '.join(f'{one:#018x}' for one in some)} ;"
                )
    for network in networks:
        for key in network.keys:
            for some in _batches(network, key):
                yield (
                    f"Default={DEFAULT_KEY:#06x}, defmember=limited :"
                    f" {', '.join(f'{one:#018x}' for one in some)} ;"
                )
    yield _END


def _guids(network: InfinibandNetwork, key: int) -> Iterator[int]:
    return (partition_guid(network.guid_prefix, key, rank, 1) for rank in range(network.max_vms))


def _batches(network: InfinibandNetwork, key: int) -> Iterator[list[int]]:
    every = [*_guids(network, key)]
    return (every[first : first + _A_LINE] for first in range(0, len(every), _A_LINE))


def render_ufm(networks: Iterable[InfinibandNetwork]) -> Iterator[str]:
    """Yield the bodies of requests to NVIDIA's UFM, one on each line, for POST /ufmRest/resources/pkeys/.

    Source: UFM Enterprise REST API guide, PKey GUIDs.
    """
    for network in networks:
        for key in network.keys:
            guids = [f"{one:016x}" for one in _guids(network, key)]
            for pkey, membership, first in ((key, "full", True), (DEFAULT_KEY, "limited", False)):
                body = {
                    "pkey": f"{pkey:#06x}",
                    "guids": guids,
                    "membership": membership,
                    "index0": first,
                    "ip_over_ib": True,
                }
                yield json.dumps(body)


_FLAG = (
    r"(?:indx0|ipoib|rate=\w+|mtu=\w+|sl=\w+|scope=\w+|Q_Key=\w+|TClass=\w+|FlowLabel=\w+|mgid=[\w:]+"
    r"|defmember=(?:full|limited|both))"
)
_PORTS = "ALL|ALL_CAS|ALL_SWITCHES|ALL_ROUTERS|ALL_VCAS|SELF"
_MEMBER = rf"(?:0x[0-9a-fA-F]{{1,16}}|{_PORTS})(?:\s*=\s*(?:full|limited|both))?"
_STATEMENT = re.compile(
    rf"\s*(?P<name>[\w.-]*)\s*(?:=\s*(?P<key>0x[0-9a-fA-F]{{1,4}}))?\s*(?:,\s*{_FLAG}\s*)*"
    rf":\s*{_MEMBER}(?:\s*,\s*{_MEMBER})*\s*"
)
_OPENS = "because of this line opensm would drop every partition, and all ports of the fabric could reach each other"


def find_faults(
    lines: Iterable[str], networks: Sequence[InfinibandNetwork], file: str
) -> Iterator[ConfigError]:
    """Yield what is wrong in an installed file of partitions: the first changed line of pcocc's, and the site's lines.

    If nothing is found, the file has all lines that `render_opensm` yields, once.
    """
    ours: Iterator[str] | None = None
    done, before, first = False, "", 1
    number = 0
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\n")
        if ours is not None:
            wanted = next(ours)
            if text != wanted:
                yield _changed(file, number, text)
                return
            done, ours = (True, None) if wanted == _END else (False, ours)
        elif text == _BEGIN:
            if done:
                yield ConfigError(
                    "pcocc's partitions begin a second time", file, number,
                    hint="keep them once, after the site's own lines",
                )
                return
            yield from _find_open(before, file, first)
            before, ours = "", render_opensm(networks)
            next(ours)
        else:
            first = first if before.strip() else number
            *whole, before = (before + text.partition("#")[0] + " ").split(";")
            for statement in whole:
                yield from _find_wrong(statement, networks, done, file, first)
                first = number
    yield from _find_open(before, file, first)
    if not done:
        what = "pcocc's partitions end too early" if ours else "pcocc's partitions are missing"
        yield ConfigError(what, file, number + 1, hint="install all that 'pcocc config partitions' prints")


def _changed(file: str, number: int, text: str) -> ConfigError:
    shown = text if len(text) <= 60 else f"{text[:60]}..."
    return ConfigError(
        f"{shown!r} is not the line that 'pcocc config partitions' prints here", file, number,
        hint="was a pool changed, or a line lost? install all that it prints again, by renaming a complete file",
    )  # fmt: skip


def _find_open(text: str, file: str, number: int) -> Iterator[ConfigError]:
    if text.strip():
        yield ConfigError(f"{text.strip()[:60]!r} has no ';' at its end", file, number, hint=_OPENS)


def _find_wrong(
    text: str, networks: Sequence[InfinibandNetwork], behind: bool, file: str, number: int
) -> Iterator[ConfigError]:
    """Yield what is wrong with one of the site's lines."""
    found = _STATEMENT.fullmatch(text)
    shown = f"{text.strip()[:60]!r}"
    if not found:
        yield ConfigError(f"{shown} is not a partition as opensm reads it", file, number, hint=_OPENS)
    elif found["key"] is None and found["name"] != "Default":
        yield ConfigError(
            f"{shown} has no key, and opensm might choose one of pcocc's", file, number,
            hint="give it a key",
        )
    else:
        key = int(found["key"] or hex(DEFAULT_KEY), 16) & DEFAULT_KEY
        owner = next((one.name for one in networks if key in one.keys), None)
        if owner is not None:
            yield ConfigError(
                f"the key {key:#06x} belongs to the pool of network {owner!r}", file, number,
                hint="give this partition another key",
            )
        elif key == DEFAULT_KEY and behind:
            hint = (
                "move it before pcocc's lines: otherwise VMs may become full members of the default partition,"
                " in which all of them reach each other"
            )
            yield ConfigError(f"{shown} comes after pcocc's lines", file, number, hint=hint)

"""A boot step as slurmstepd vouches for it, parsed from the lines that the plugin writes to root's helper."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pcocc_runtime import naming
from pcocc_runtime.documents.fields import parse_fields, parse_number
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.errors import NodeError


@dataclass(frozen=True, slots=True)
class Person:
    """The job's user as this host's user and group databases have it; `name` is None for a uid without an entry."""

    uid: int
    name: str | None
    groups: frozenset[str] = frozenset()


_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_RANKS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_DEVICE = r":([A-Za-z][A-Za-z0-9_]{0,31}:[A-Za-z0-9_.-]{0,63}):([0-9]{1,2})"
_SET = rf"([A-Za-z0-9_.-]{{1,64}}):([0-9]{{1,6}})((?:{_DEVICE})*)"
_SETS = re.compile(rf"{_SET}(,{_SET})*")


@dataclass(frozen=True, slots=True)
class Charge:
    """What slurmctld says of a job: account, partition, QOS, licences, and for each node its `gres_detail_str`."""

    account: str
    partition: str
    qos: str
    licences: str = ""
    gres: tuple[str, ...] = ()

    def gres_on(self, node: str) -> str:
        """Return the job's GRES on a node, with their places among the node's devices."""
        return next((text for name, _, text in (line.partition(" ") for line in self.gres) if name == node), "")


@dataclass(frozen=True, slots=True)
class BootStep:
    """A boot step as one of its nodes sees it; `index` is this node's place in `nodes`.

    `sets` are resource sets with their numbers of VMs. For each of them, `devices` says which GRES its VMs have in
    addition, and how many.
    """

    job: int
    step: int
    uid: int
    gid: int
    stepd: int
    index: int
    nodes: tuple[NodeLayout, ...]
    sets: tuple[tuple[str, int], ...]
    charge: Charge | None = None  # slurmctld is asked only when it matters
    devices: tuple[tuple[tuple[str, int], ...], ...] = ()

    @property
    def here(self) -> NodeLayout:
        """Return this node."""
        return self.nodes[self.index]

    @property
    def peers(self) -> tuple[NodeLayout, ...]:
        """Return the job's other nodes."""
        return self.nodes[: self.index] + self.nodes[self.index + 1 :]

    @property
    def vm_count(self) -> int:
        """Return the number of VMs of the whole cluster."""
        return sum(len(node.ranks) for node in self.nodes)

    def set_of(self, rank: int) -> str:
        """Return the resource set of a VM."""
        return self.sets[self._part_of(rank)][0]

    def devices_of(self, rank: int) -> tuple[tuple[str, int], ...]:
        """Return which GRES a VM has in addition to those of its resource set, and how many of each."""
        return self.devices[self._part_of(rank)] if self.devices else ()

    def _part_of(self, rank: int) -> int:
        first = 0
        for place, (_name, count) in enumerate(self.sets):
            first += count
            if rank < first:
                return place
        raise NodeError(
            f"the step has vm{rank}, but the request describes only {first} VMs",
            hint="this is a bug in pcocc's plugin: please report it",
        )


def parse_ranks(text: str) -> tuple[int, ...]:
    """Parse `0-3,7` into ranks."""
    ranks: list[int] = []
    for part in text.split(","):
        found = _RANKS.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= naming.MAX_RANK:
            raise NodeError(f"the plugin's request has invalid task ids {text[:200]!r}")
        ranks.extend(range(first, last + 1))
    return tuple(ranks)


def parse_boot_step(lines: Iterable[str]) -> BootStep:
    """Check and parse a whole set-up request."""
    fields = parse_fields(lines)
    nodes = []
    for row in fields.get("layout", []):
        name, _, ranks = row.partition(" ")
        if not _NODE_NAME.fullmatch(name):
            raise NodeError(f"the plugin's request has an invalid node name {name!r}")
        nodes.append(NodeLayout(name, parse_ranks(ranks)))
    sets = fields.get("sets", [""])[0]
    if not _SETS.fullmatch(sets):
        raise NodeError(
            f"{sets!r} is not a list of resource sets", hint="--pcocc-boot is internal; use --pcocc-template"
        )
    parts = re.findall(rf"{_SET}(?:,|$)", sets)
    return BootStep(
        job=parse_number(fields, "job", naming.MAX_JOB_ID),
        step=parse_number(fields, "step"),
        uid=parse_number(fields, "uid"),
        gid=parse_number(fields, "gid"),
        stepd=parse_number(fields, "stepd"),
        index=parse_number(fields, "index", len(nodes) - 1),
        nodes=tuple(nodes),
        sets=tuple((name, int(count)) for name, count, *_devices in parts),
        charge=_parse_charge(fields),
        devices=tuple(_parse_devices(one[2]) for one in parts) if any(one[2] for one in parts) else (),
    )


def _parse_devices(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((name.rstrip(":"), int(count)) for name, count in re.findall(_DEVICE, text))


def _parse_charge(fields: dict[str, list[str]]) -> Charge | None:
    values = [fields.get(key, []) for key in ("account", "partition", "qos")]
    if not any(values):
        return None
    if any(len(one) != 1 for one in values):
        raise NodeError(
            "the plugin's request names only some of the job's account, partition and QOS",
            hint="install the same version of plugin and runtime",
        )
    account, partition, qos = (one[0] for one in values)
    return Charge(account, partition, qos, fields.get("licenses", [""])[0], tuple(fields.get("gres", ())))

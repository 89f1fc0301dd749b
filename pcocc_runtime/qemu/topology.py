"""The guest's CPUs and NUMA nodes as the shape of what its task holds (docs/decisions/038).

vCPU i runs on the i-th CPU of the plan's order: sockets, their dies, clusters, cores and threads one after the
other. Fuller groups come first, so that an incomplete one can be last: QEMU takes its missing CPUs as not plugged
in. Where that does not reproduce the host's groups, the levels that prevent it are flattened: left out, with a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

from pcocc_runtime.documents.hardware import (
    Allocation,
    Flattened,
    GuestNode,
    HostCpu,
    HostNode,
    Shape,
    Topology,
)

LEVELS = ("socket", "die", "cluster", "thread")  # these can be flattened: without threads, each CPU is a core
_COSTS = {"socket": 4, "die": 2, "cluster": 1, "thread": 8}  # what the guest's kernel loses with each
_ORDER = sorted(
    (dropped for count in range(5) for dropped in combinations(LEVELS, count)),
    key=lambda dropped: sum(_COSTS[one] for one in dropped),
)
_NEAR, _FAR = 10, 254  # distances of ACPI's SLIT: to itself, and the farthest that is not "unreachable"

Key = Callable[[HostCpu], object]


def plan_topology(part: Allocation, count: int, emulator: int, sole: bool, clusters: bool) -> Topology:
    """Return the topology of a guest that gets all but `emulator` of its task's `count` CPUs.

    `sole`: no other VM of the job is on the node. `clusters`: QEMU has a level between dies and cores.
    """
    own = _choose_own(part, count, sole)
    if isinstance(own, str):
        return plan_flat(count - emulator, own)
    kept, rest = own[:emulator], own[emulator:]
    shape, ordered, flattened, group = _fit(rest, clusters)
    l3, more = _judge_l3(ordered, shape, group)
    return Topology(
        shape=shape,
        cpus=tuple(cpu.number for cpu in ordered),
        emulator=tuple(cpu.number for cpu in kept),
        l3=l3,
        l2=shape.clusters > 1
        and _groups(ordered, lambda cpu: cpu.l2) == _groups(ordered, lambda cpu: cpu.cluster),
        whole_l3=l3 and all(total == rest_of for total, rest_of in _l3_sizes(ordered)),
        flattened=(*flattened, *more),
    )


def plan_flat(vcpus: int, why: str) -> Topology:
    """Return the topology of a guest without CPUs of its own: one socket, memory where the kernel puts it."""
    return Topology(Shape(vcpus, cores=vcpus), l3=True, flattened=(Flattened("all", why),))


def plan_nodes(part: Allocation, topology: Topology, memory: int, step: int) -> Topology:
    """Return the topology with a NUMA node for each host node of its vCPUs; `memory` MiB, in steps of `step`.

    Each node gets memory in proportion to what the task holds there: its share of a node's CPUs, times its memory.
    """
    homes = {cpu.number: cpu.node for cpu in part.cpus}
    nodes = [node for node in part.nodes if node.number in {homes[cpu] for cpu in topology.cpus}]
    places = {
        node.number: tuple(i for i, cpu in enumerate(topology.cpus) if homes[cpu] == node.number)
        for node in nodes
    }
    weights = [
        len(places[node.number]) * node.memory // max(node.cpus, 1) if node.usable else 0 for node in nodes
    ]
    if len(part.nodes) < 2 or not any(weights):
        why = "the task may use no memory of the NUMA nodes that its CPUs are on"
        unbound = (Flattened("node", why),) if len(part.nodes) > 1 and nodes else ()
        return replace(topology, flattened=(*topology.flattened, *unbound))
    shares = _split(memory, weights, step)
    found = [
        GuestNode(node.number, places[node.number], size, _has_room(node, size))
        for node, size in zip(nodes, shares, strict=True)
    ]
    distances, more = _choose_distances(part, nodes)
    more += tuple(
        Flattened(
            "memory",
            f"the host's node {one.host} has {node.memory} MiB, too few for {one.memory} of the guest's: "
            "the rest lies elsewhere",
        )
        for node, one in zip(nodes, found, strict=True)
        if not one.strict
    )
    empty = [str(one.host) for one in found if not one.memory]
    if empty:
        more = (*more, Flattened("memory", f"the task holds none on node {' and '.join(empty)}"))
    return replace(topology, nodes=tuple(found), distances=distances, flattened=(*topology.flattened, *more))


def _has_room(node: HostNode, size: int) -> bool:
    """Tell whether a node has `size` MiB and some to spare: a guest bound to more than it has would be killed."""
    return size <= node.memory - node.memory // 16


def _choose_own(part: Allocation, count: int, sole: bool) -> list[HostCpu] | str:
    """Return the CPUs that are the task's own, in order, or why there are none."""
    held = len(part.cpus)
    if held == count or (held > count and sole and held < part.online):
        return _sort(part.cpus, ())[:count]
    if held < count:
        return f"Slurm gives the task {count} CPUs, but it may run on only {held}"
    return f"the task has {count} CPUs and may run on {held}, as others may: none is its own"


def _fit(
    own: Sequence[HostCpu], clusters: bool
) -> tuple[Shape, list[HostCpu], list[Flattened], dict[str, Key]]:
    """Return the shape that keeps the most levels, the CPUs in its order, and what was flattened."""
    flattened = []
    if not clusters and _matters(own, "cluster"):
        flattened.append(Flattened("cluster", "this QEMU has no level between dies and cores"))
    for dropped in _ORDER:
        if not clusters and "cluster" not in dropped:
            continue
        ordered = _sort(own, dropped)
        keys = _keys(ordered, dropped)
        shape = _measure(ordered, keys)
        if shape is not None:
            lost = [one for one in dropped if _matters(own, one) and (clusters or one != "cluster")]
            return (
                shape,
                ordered,
                [*flattened, *(Flattened(one, _explain(own, one)) for one in lost), *_name_finer_dies(own)],
                keys,
            )
    raise AssertionError("one socket of cores holds any CPUs")


def _die(cpu: HostCpu) -> object:
    """Return the group of CPUs that share an L3 cache within a die: QEMU means this by a die."""
    return cpu.die, cpu.l3


def _keys(own: Sequence[HostCpu], dropped: Sequence[str]) -> dict[str, Key]:
    """Return functions from a CPU to its group at each level, outermost first; a flattened level joins another."""
    package: Key = (lambda cpu: 0) if "socket" in dropped else (lambda cpu: cpu.package)
    core: Key = (lambda cpu: cpu.number) if "thread" in dropped else (lambda cpu: cpu.core)
    die: Key = package if "die" in dropped else (lambda cpu: (package(cpu), _die(cpu)))
    cluster: Key = (
        die if "cluster" in dropped or not _has_clusters(own) else (lambda cpu: (die(cpu), cpu.cluster))
    )
    return {"socket": package, "die": die, "cluster": cluster, "core": core}


def _has_clusters(own: Sequence[HostCpu]) -> bool:
    """Tell whether clusters hold more than one core each: otherwise they are not a level of their own."""
    return len({(cpu.cluster, cpu.core) for cpu in own}) > len({cpu.cluster for cpu in own})


def _matters(own: Sequence[HostCpu], level: str) -> bool:
    """Tell whether a level of the host groups these CPUs at all."""
    if level == "thread":
        return len({cpu.core for cpu in own}) < len(own)
    if level == "cluster":
        return _has_clusters(own) and _groups(own, lambda cpu: cpu.cluster) != _groups(own, _die)
    return len({_die(cpu) if level == "die" else cpu.package for cpu in own}) > 1


def _sort(own: Iterable[HostCpu], dropped: Sequence[str]) -> list[HostCpu]:
    """Return CPUs group by group, the fuller groups first, then the one with the lowest CPU."""

    def sort(members: list[HostCpu], keys: list[Key]) -> list[HostCpu]:
        if not keys:
            return sorted(members)
        groups: dict[object, list[HostCpu]] = {}
        for cpu in members:
            groups.setdefault(keys[0](cpu), []).append(cpu)
        ordered = sorted(groups.values(), key=lambda group: (-len(group), min(group)))
        return [cpu for group in ordered for cpu in sort(group, keys[1:])]

    members = sorted(own)
    return sort(members, list(_keys(members, dropped).values()))


def _measure(ordered: Sequence[HostCpu], keys: dict[str, Key]) -> Shape | None:
    """Return the shape in which QEMU puts its i-th CPU where the i-th of these is, None when there is no such shape."""
    sizes, inner = [], [lambda cpu: cpu.number, *reversed(keys.values())]
    for small, large in pairwise(inner):
        members: dict[object, set[object]] = {}
        for cpu in ordered:
            members.setdefault(large(cpu), set()).add(small(cpu))
        sizes.append(max(map(len, members.values())))
    threads, cores, clusters, dies = sizes
    shape = Shape(len(ordered), len({keys["socket"](cpu) for cpu in ordered}), dies, clusters, cores, threads)
    spans = {
        "core": threads,
        "cluster": threads * cores,
        "die": threads * cores * clusters,
        "socket": threads * cores * clusters * dies,
    }
    fits = all(_groups(ordered, key) == _cut(len(ordered), spans[level]) for level, key in keys.items())
    return shape if fits else None


def _groups(ordered: Sequence[HostCpu], key: Key) -> frozenset[frozenset[int]]:
    """Return the groups of these CPUs, as sets of their places in the order."""
    found: dict[object, set[int]] = {}
    for place, cpu in enumerate(ordered):
        found.setdefault(key(cpu), set()).add(place)
    return frozenset(map(frozenset, found.values()))


def _cut(count: int, span: int) -> frozenset[frozenset[int]]:
    return frozenset(frozenset(range(first, min(first + span, count))) for first in range(0, count, span))


def _explain(own: Sequence[HostCpu], level: str) -> str:
    """Return why QEMU cannot show a level: its groups differ in size, and not only in the last one."""
    keys: dict[str, Key] = {
        "thread": lambda cpu: cpu.core,
        "cluster": lambda cpu: cpu.cluster,
        "die": _die,
        "socket": lambda cpu: cpu.package,
    }
    noun = {"thread": "cores", "cluster": "clusters", "die": "dies", "socket": "sockets"}[level]
    sizes = Counter(Counter(map(keys[level], own)).values())
    said = " and ".join(f"{count} {noun} of {size} CPUs" for size, count in sorted(sizes.items(), reverse=True))
    return f"the task has {said}, but in QEMU only the last of them can be smaller"


def _name_finer_dies(own: Sequence[HostCpu]) -> list[Flattened]:
    """Return the note that each L3 cache of a host's die makes a die of the guest."""
    packages, dies = {cpu.package for cpu in own}, {cpu.die for cpu in own}
    if len(packages) < len(dies) < len({_die(cpu) for cpu in own}):
        return [Flattened("die", "a die of the host has several L3 caches, and each is a die of the guest")]
    return []


def _judge_l3(
    ordered: Sequence[HostCpu], shape: Shape, keys: dict[str, Key]
) -> tuple[bool, tuple[Flattened, ...]]:
    """Tell whether the guest's dies share L3 caches as the host's do; if not, a note says that it gets no L3."""
    dies = _cut(len(ordered), shape.threads * shape.cores * shape.clusters)
    if all(cpu.l3 is None for cpu in ordered):
        return False, ()
    if _groups(ordered, lambda cpu: cpu.l3 if cpu.l3 is not None else ("none", cpu.core)) == dies:
        return True, ()
    return False, (
        Flattened(
            "l3",
            "the dies that QEMU can show do not share the L3 caches as the host's CPUs do, so the guest has none",
        ),
    )


def _l3_sizes(ordered: Sequence[HostCpu]) -> list[tuple[int, int]]:
    """Return for each CPU how many of the host's CPUs, and how many of these, share its L3 cache."""
    held = Counter(cpu.l3 for cpu in ordered)
    return [(cpu.l3_cpus, held[cpu.l3]) for cpu in ordered]


def _split(memory: int, weights: Sequence[int], step: int) -> list[int]:
    """Return shares of memory by weight, in multiples of `step`; the largest gets the rest."""
    total = sum(weights)
    shares = [memory * weight // total // step * step for weight in weights]
    shares[weights.index(max(weights))] += (memory - sum(shares)) // step * step
    return shares


def _choose_distances(
    part: Allocation, nodes: Sequence[HostNode]
) -> tuple[tuple[tuple[int, ...], ...], tuple[Flattened, ...]]:
    """Return the host's distances between nodes, and notes; no distances for one node, or if QEMU would refuse them."""
    if len(nodes) < 2:
        return (), ()
    places = [part.nodes.index(node) for node in nodes]
    if not all(node.distances for node in nodes):
        return (), (Flattened("distance", "the host does not say how far apart its nodes are"),)
    rows = tuple(tuple(node.distances[place] for place in places) for node in nodes)
    for i, row in enumerate(rows):
        if any(value != _NEAR if i == j else not _NEAR < value <= _FAR for j, value in enumerate(row)):
            return (), (Flattened("distance", "the host's distances are not between 11 and 254, as ACPI has them"),)
    return rows, ()

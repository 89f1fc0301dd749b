"""The guest's CPUs and NUMA nodes as the shape of what its task holds (docs/decisions/038).

vCPU i runs on the i-th CPU of the plan's order: sockets, their dies, clusters, cores and threads one after the
other. Fuller groups come first, so that an incomplete one can be last: QEMU takes its missing CPUs as not plugged
in. Where that does not reproduce the host's groups, the levels that prevent it are flattened: left out, with a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

from pcocc_runtime.cpulist import render_cpu_list
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

Labels = Sequence[object]  # of a row of CPUs: those with the same label are together


def plan_topology(part: Allocation, count: int, emulator: int, sole: bool, clusters: bool) -> Topology:
    """Return the topology of a guest that gets all but `emulator` of its task's `count` CPUs.

    `sole`: no other VM of the job is on the node. `clusters`: QEMU has a level between dies and cores.
    """
    why = _find_sharing(part, count, sole)
    if why:
        return plan_flat(count - emulator, why)
    own = _sort(part.cpus, ())[:count] if emulator or len(part.cpus) > count else part.cpus
    kept, rest = own[:emulator], own[emulator:]
    shape, ordered, flattened = _fit(rest, clusters)
    l3, more = _judge_l3(ordered, shape)
    return Topology(
        shape=shape,
        cpus=tuple(cpu.number for cpu in ordered),
        emulator=tuple(cpu.number for cpu in kept),
        l3=l3,
        l2=shape.clusters > 1
        and _are_alike([cpu.l2 for cpu in ordered], [cpu.cluster for cpu in ordered]),
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
    homes = {cpu.number: cpu.node for cpu in part.cpus if cpu.number in {*topology.cpus}}
    nodes = [node for node in part.nodes if node.number in {*homes.values()}]
    why = _find_unbound(homes, nodes)
    if why or len(part.nodes) < 2:
        unbound = (Flattened("node", why),) if len(part.nodes) > 1 and homes else ()
        return replace(topology, flattened=(*topology.flattened, *unbound))
    places = {
        node.number: tuple(i for i, cpu in enumerate(topology.cpus) if homes[cpu] == node.number)
        for node in nodes
    }
    weights = [_weigh(node, len(places[node.number])) for node in nodes]
    shares = _split(memory, weights, step)
    found = [
        GuestNode(node.number, places[node.number], size, _has_room(node, size))
        for node, size in zip(nodes, shares, strict=True)
    ]
    distances, more = _choose_distances(part, nodes)
    more += tuple(
        Flattened("memory", why)
        for node, one, weight in zip(nodes, found, weights, strict=True)
        if (why := _judge_share(node, one, weight))
    )
    return replace(topology, nodes=tuple(found), distances=distances, flattened=(*topology.flattened, *more))


def _find_unbound(homes: Mapping[int, int | None], nodes: Sequence[HostNode]) -> str:
    """Return why guest memory cannot be divided among the nodes of its CPUs, an empty text when it can."""
    lost = [cpu for cpu, home in homes.items() if home is None]
    if lost:
        return f"the host does not say on which NUMA node CPUs {render_cpu_list(lost)} are"
    dumb = [str(node.number) for node in nodes if node.memory is None]
    if dumb:
        return f"the host does not say how much memory NUMA node {' and '.join(dumb)} has"
    if not any(_weigh(node, 1) for node in nodes):
        return "the NUMA nodes that its CPUs are on have no memory that the task may use"
    return ""


def _weigh(node: HostNode, held: int) -> int:
    """Return the MiB that belong to so many CPUs of a node, at least one where there is any that the task may use."""
    memory = node.memory if node.usable else 0
    return max(held * memory // max(node.cpus, held), 1) if memory else 0


def _judge_share(node: HostNode, one: GuestNode, weight: int) -> str:
    """Return what is to be told of a guest node's memory, an empty text when nothing is."""
    if not weight:
        return f"the task holds none on node {node.number}"
    if not one.memory:
        return f"the guest's share on node {node.number} is smaller than a page"
    if one.strict:
        return ""
    return (
        f"the host's node {node.number} has {node.memory} MiB, too few for {one.memory} of the guest's: "
        "the rest lies elsewhere"
    )


def _has_room(node: HostNode, size: int) -> bool:
    """Tell whether a node has `size` MiB and some to spare: a guest bound to more than it has would be killed."""
    memory = node.memory or 0
    return size <= memory - memory // 16


def _find_sharing(part: Allocation, count: int, sole: bool) -> str:
    """Return why no CPU is the task's own, an empty text when the first `count` of its CPUs are."""
    held = len(part.cpus)
    if held == count or (held > count and sole and held < part.online):
        return ""
    if held < count:
        return f"Slurm gives the task {count} CPUs, but it may run on only {held}"
    return f"the task has {count} CPUs and may run on {held}, as others may: none is its own"


def _fit(own: Sequence[HostCpu], clusters: bool) -> tuple[Shape, list[HostCpu], list[Flattened]]:
    """Return the shape that keeps the most levels, the CPUs in its order, and what was flattened."""
    flattened = []
    if not clusters and _matters(own, "cluster"):
        flattened.append(Flattened("cluster", "this QEMU has no level between dies and cores"))
    for dropped in _ORDER:
        if not clusters and "cluster" not in dropped:
            continue
        ordered = _sort(own, dropped)
        shape = _measure(ordered, dropped)
        if shape is not None:
            lost = [one for one in dropped if _matters(own, one) and (clusters or one != "cluster")]
            flattened += [Flattened(one, _explain(own, one)) for one in lost]
            return shape, ordered, [*flattened, *_name_finer_dies(own)]
    raise AssertionError("one socket of cores holds any CPUs")


def _die(cpu: HostCpu) -> object:
    """Return the group of CPUs that share an L3 cache within a die: QEMU means this by a die."""
    return cpu.die, cpu.l3


def _label(own: Sequence[HostCpu], dropped: Sequence[str]) -> dict[str, Labels]:
    """Return each CPU's group at each level, outermost first; a flattened level joins another."""
    package = [0] * len(own) if "socket" in dropped else [cpu.package for cpu in own]
    die = package if "die" in dropped else [*zip(package, map(_die, own), strict=True)]
    flat = "cluster" in dropped or not _has_clusters(own)
    cluster = die if flat else [*zip(die, (cpu.cluster for cpu in own), strict=True)]
    core = [cpu.number if "thread" in dropped else cpu.core for cpu in own]
    return {"socket": package, "die": die, "cluster": cluster, "core": core}


def _has_clusters(own: Sequence[HostCpu]) -> bool:
    """Tell whether clusters hold more than one core each: otherwise they are not a level of their own."""
    return len({(cpu.cluster, cpu.core) for cpu in own}) > len({cpu.cluster for cpu in own})


def _matters(own: Sequence[HostCpu], level: str) -> bool:
    """Tell whether a level of the host groups these CPUs at all."""
    if level == "thread":
        return len({cpu.core for cpu in own}) < len(own)
    if level == "cluster":
        return _has_clusters(own) and not _are_alike([cpu.cluster for cpu in own], [*map(_die, own)])
    return len({_die(cpu) if level == "die" else cpu.package for cpu in own}) > 1


def _sort(own: Iterable[HostCpu], dropped: Sequence[str]) -> list[HostCpu]:
    """Return CPUs group by group, the fuller groups first, then the one with the lowest CPU."""
    members = sorted(own)
    ranks: list[list[tuple[int, int]]] = []
    for labels in _label(members, dropped).values():
        sizes, first = Counter(labels), dict[object, int]()
        for place, label in enumerate(labels):
            first.setdefault(label, place)
        ranks.append([(-sizes[label], first[label]) for label in labels])
    keys = [*zip(*ranks, strict=True)]
    return [members[place] for place in sorted(range(len(members)), key=keys.__getitem__)]


def _measure(ordered: Sequence[HostCpu], dropped: Sequence[str]) -> Shape | None:
    """Return the shape in which QEMU puts its i-th CPU where the i-th of these is, None when there is no such shape."""
    groups = _label(ordered, dropped)
    sizes = []
    for small, large in pairwise([[cpu.number for cpu in ordered], *reversed(groups.values())]):
        sizes.append(max(Counter(outer for outer, _inner in {*zip(large, small, strict=True)}).values()))
    threads, cores, clusters, dies = sizes
    shape = Shape(len(ordered), len({*groups["socket"]}), dies, clusters, cores, threads)
    spans = {
        "core": threads,
        "cluster": threads * cores,
        "die": threads * cores * clusters,
        "socket": threads * cores * clusters * dies,
    }
    fits = all(_are_alike(labels, _cut(len(ordered), spans[level])) for level, labels in groups.items())
    return shape if fits else None


def _are_alike(one: Labels, other: Labels) -> bool:
    """Tell whether CPUs that are together by their labels in one list are together by the other one's, too."""
    return len({*one}) == len({*other}) == len({*zip(one, other, strict=True)})


def _cut(count: int, span: int) -> Labels:
    """Return the groups of so many CPUs that follow each other, as QEMU counts them."""
    return [place // span for place in range(count)]


def _explain(own: Sequence[HostCpu], level: str) -> str:
    """Return why QEMU cannot show a level: its groups differ in size, and not only in the last one."""
    keys: dict[str, Callable[[HostCpu], object]] = {
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


def _judge_l3(ordered: Sequence[HostCpu], shape: Shape) -> tuple[bool, tuple[Flattened, ...]]:
    """Tell whether the guest's dies share L3 caches as the host's do; if not, a note says that it gets no L3."""
    caches = [cpu.l3 if cpu.l3 is not None else ("none", cpu.core) for cpu in ordered]
    if all(cpu.l3 is None for cpu in ordered):
        return False, ()
    if _are_alike(caches, _cut(len(ordered), shape.threads * shape.cores * shape.clusters)):
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

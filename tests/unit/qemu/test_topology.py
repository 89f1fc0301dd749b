"""The guest's topology: golden ones of real machines and parts of them, and what holds for any machine and part."""

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pcocc_runtime.cpulist import parse_cpu_list
from pcocc_runtime.documents.hardware import Allocation, HostCpu, HostNode, Topology
from pcocc_runtime.qemu.topology import plan_nodes, plan_topology
from pcocc_runtime.system.hardware import read_part
from tests.machines import MACHINES, write_machine


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of machines are, each written once."""
    return tmp_path_factory.mktemp("machines")


def plan(
    written: Path, name: str, cpus: str, count: int = 0, emulator: int = 0, sole: bool = True, clusters: bool = False
) -> Topology:
    """Return the topology of a VM with 8 GiB in a task that may run on these CPUs of a machine, all without any."""
    root = written / name
    system, proc = (f"{root}/sys", f"{root}/proc") if root.exists() else write_machine(MACHINES[name], root)
    own = parse_cpu_list(cpus) or MACHINES[name].cpus
    part = read_part(own, system, proc)
    return plan_nodes(part, plan_topology(part, count or len(own), emulator, sole, clusters), 8192, 2)


@pytest.mark.parametrize(
    ("name", "cpus", "shape", "first", "nodes", "flat"),
    [
        # everything: sockets, L3 caches, cores and threads, and a node for each of the host's
        ("epyc-2-nodes", "", (256, 2, 8, 1, 8, 2), (0, 128, 1, 129), [4096] * 2, []),
        ("epyc-8-nodes", "", (256, 2, 8, 1, 8, 2), (0, 128, 1, 129), [1024] * 8, []),
        ("xeon-snc4", "", (128, 2, 1, 1, 32, 2), (0, 64, 1, 65), [1024] * 8, []),
        ("opteron", "", (64, 4, 2, 1, 4, 2), (0, 1, 2, 3), [1094, *[1092] * 4, 546, *[1092] * 2], []),
        ("xeon-dies", "", (64, 4, 2, 1, 4, 2), (0, 1, 2, 3), [512] * 16, []),
        ("grace", "", (144, 2, 1, 1, 72, 1), (0, 1, 2, 3), [4096] * 2, []),
        ("kunpeng", "", (128, 2, 2, 1, 32, 1), (0, 1, 2, 3), [2048] * 4, ["cluster"]),
        ("hybrid", "", (20, 1, 1, 1, 20, 1), (0, 1, 2, 3), [], ["cluster", "thread"]),
        ("offline", "", (12, 1, 1, 1, 12, 1), (0, 1, 3, 4), [], ["socket", "die", "thread", "l3"]),
        # CR_Core: whole cores, of one L3 cache, of halves of two, of two nodes
        ("epyc-8-nodes", "0-7,128-135", (16, 1, 1, 1, 8, 2), (0, 128, 1, 129), [8192], []),
        ("epyc-8-nodes", "0-3,8-11,128-131,136-139", (16, 1, 2, 1, 4, 2), (0, 128, 1, 129), [8192], []),
        ("epyc-8-nodes", "12-19,140-147", (16, 1, 2, 1, 4, 2), (12, 140, 13, 141), [4096] * 2, []),
        ("xeon-snc4", "0-8,64-72", (18, 1, 1, 1, 9, 2), (0, 64, 1, 65), [7282, 910], []),
        # CR_CPU: single threads of cores; a thread more than cores; uneven parts, of which the last may be the smaller
        ("epyc-8-nodes", "0-11", (12, 1, 2, 1, 8, 1), (0, 1, 2, 3), [8192], []),
        ("epyc-8-nodes", "0-4,8-12,16", (11, 1, 3, 1, 5, 1), (0, 1, 2, 3), [7448, 744], []),
        ("epyc-8-nodes", "0-4,8-10,16", (9, 1, 1, 1, 9, 1), (0, 1, 2, 3), [7282, 910], ["die", "l3"]),
        ("xeon-snc4", "0-2,64-65", (5, 1, 1, 1, 3, 2), (0, 64, 1, 65), [8192], []),
        ("xeon-snc4", "2,64-65", (3, 1, 1, 1, 3, 1), (2, 64, 65), [8192], []),
        ("hybrid", "0-5", (6, 1, 1, 1, 3, 2), (0, 1, 2, 3), [], []),
        ("hybrid", "12-19", (8, 1, 1, 1, 8, 1), (12, 13, 14, 15), [], ["cluster"]),
        # CR_Socket: CPUs of several sockets
        ("offline", "6,10", (2, 1, 1, 1, 2, 1), (6, 10), [], []),
        ("small", "0-2", (3, 2, 1, 1, 2, 1), (0, 1, 2), [5462, 2730], []),
        ("small-threads", "1-3", (3, 2, 1, 1, 1, 2), (2, 3, 1), [2730, 5462], []),
        ("eight", "", (8, 2, 1, 1, 2, 2), (0, 4, 1, 5), [2048, 6144], []),
    ],
)  # fmt: skip
def test_machines(
    written: Path, name: str, cpus: str, shape: tuple[int, ...], first: tuple[int, ...], nodes: list[int], flat: list[str]
) -> None:
    found = plan(written, name, cpus)
    assert (tuple(found.shape), found.cpus[:4]) == (shape, first[:4])
    assert [node.memory for node in found.nodes] == nodes
    assert [one.level for one in found.flattened if one.level != "memory"] == flat
    assert found.l3 == ("l3" not in flat)


def test_nodes_have_the_hosts_distances(written: Path) -> None:
    found = plan(written, "kunpeng", "0-1,64-67,96")
    assert found.distances == ((10, 32, 33), (32, 10, 16), (33, 16, 10))
    assert [(node.host, [found.cpus[place] for place in node.cpus]) for node in found.nodes] == [
        (0, [0, 1]),
        (2, [64, 65, 66, 67]),
        (3, [96]),
    ]


@pytest.mark.parametrize(("name", "shape", "flat"), [
    ("kunpeng", (128, 2, 2, 8, 4, 1), []), ("hybrid", (20, 1, 1, 1, 20, 1), ["cluster", "thread"]),
    ("xeon-snc4", (128, 2, 1, 1, 32, 2), []),
])  # fmt: skip
def test_a_qemu_that_has_clusters_shows_them(written: Path, name: str, shape: tuple[int, ...], flat: list[str]) -> None:
    found = plan(written, name, "", clusters=True)
    assert (tuple(found.shape), [one.level for one in found.flattened]) == (shape, flat)


def test_clusters_of_efficient_cores_share_their_l2(written: Path) -> None:
    found = plan(written, "hybrid", "12-19", clusters=True)
    assert (tuple(found.shape), found.l2) == ((8, 1, 1, 2, 4, 1), True)


@pytest.mark.parametrize(
    ("cpus", "count", "sole", "own", "why"),
    [
        ("0-3", 2, True, (), "the task has 2 CPUs and may run on 4, as others may: none is its own"),  # Slurm without affinity
        ("0-3", 8, True, (), "Slurm gives the task 8 CPUs, but it may run on only 4"),
        ("0-2", 2, False, (), "the task has 2 CPUs and may run on 3, as others may: none is its own"),  # cpusets of jobs only
        ("0-2", 2, True, (0, 1), ""),  # a cpuset of its job, which has one VM here
        ("1,3", 2, False, (1, 3), ""),
    ],
)  # fmt: skip
def test_which_cpus_are_the_tasks_own(
    written: Path, cpus: str, count: int, sole: bool, own: tuple[int, ...], why: str
) -> None:
    found = plan(written, "small", cpus, count, sole=sole)
    assert found.cpus == own
    assert [one.why for one in found.flattened if one.level != "memory"] == [why] * bool(why)
    if not own:
        assert tuple(found.shape) == (count, 1, 1, 1, count, 1) and not found.nodes


def test_three_cpus_of_two_cores_are_a_core_and_a_thread(written: Path) -> None:
    found = plan(written, "eight", "0-1,4-5", 3)
    assert (found.cpus, tuple(found.shape)) == ((0, 4, 1), (3, 1, 1, 1, 2, 2))


def test_cpus_kept_for_qemu_come_first(written: Path) -> None:
    found = plan(written, "eight", "", emulator=2)
    assert (found.emulator, found.cpus, tuple(found.shape)) == ((0, 4), (2, 6, 3, 7, 1, 5), (6, 2, 1, 1, 2, 2))


def test_more_memory_than_a_node_has_is_not_bound_there(written: Path) -> None:
    found = plan(written, "eight", "0-3")  # 2 GiB of 8 are of a node that has no more
    assert [(node.memory, node.strict) for node in found.nodes] == [(2048, False), (6144, False)]
    assert (
        found.flattened[0].why == "the host's node 0 has 2048 MiB, too few for 2048 of the guest's: the rest lies elsewhere"
    )
    assert found.nodes[0].policy == ",host-nodes=0,policy=preferred"
    assert [node.policy for node in plan(written, "grace", "70-73").nodes] == [
        ",host-nodes=0,policy=bind",
        ",host-nodes=1,policy=bind",
    ]


def test_memory_lies_where_the_task_may_have_it(tmp_path: Path) -> None:
    system, proc = write_machine(MACHINES["eight"], tmp_path, mems="1")
    part = read_part(range(8), system, proc)
    found = plan_nodes(part, plan_topology(part, 8, 0, True, False), 1001, 2)
    assert [(node.host, node.memory) for node in found.nodes] == [(0, 0), (1, 1000)]
    assert [one.why for one in found.flattened] == ["the task holds none on node 0"]
    part = read_part((0, 1), system, proc)
    found = plan_nodes(part, plan_topology(part, 2, 0, True, False), 1001, 2)
    assert not found.nodes and [one.level for one in found.flattened] == ["node"]


@pytest.mark.parametrize("row", [(), (10, 10), (10, 255), (11, 20)])
def test_distances_that_no_firmware_has_are_left_out(row: tuple[int, ...]) -> None:
    cpus = tuple(HostCpu(cpu, cpu, cpu, cpu, cpu, cpu, cpu, cpu, 1) for cpu in (0, 1))
    part = Allocation(cpus, (HostNode(0, 1, 64, True, row), HostNode(1, 1, 64, True, (20, 10))), 2)
    found = plan_nodes(part, plan_topology(part, 2, 0, True, False), 64, 2)
    assert len(found.nodes) == 2 and not found.distances and [one.level for one in found.flattened] == ["distance"]


def make_part(source: random.Random) -> Allocation:
    """Return a part, of any size and scatter, of any machine: its groups are nested, and of any sizes."""
    cpus: list[HostCpu] = []
    spread = source.choice([(1, 1), (2, 2), (1, 3), (1, 4)])
    threads_apart = source.random() < 0.5
    for package in range(source.randint(1, 3)):
        for die, l3 in itertools.product(range(source.randint(*spread)), range(source.randint(1, 2))):
            for cluster in range(source.randint(*spread)):
                for core in range(source.randint(*spread)):
                    here = (package, die, l3, cluster, core)
                    cpus += [HostCpu(0, *map(hash, (here[:1], here[:2], here[:4], here)), 0, hash(here[:4]), hash(here[:3]), 4)
                             for _thread in range(source.randint(1, 2))]  # fmt: skip
    numbers = [*range(len(cpus))]
    if threads_apart:
        source.shuffle(numbers)
    nodes = source.randint(1, 4)
    level = source.choice(["package", "die", "l3", "core"])
    named = [cpu._replace(number=number) for cpu, number in zip(cpus, numbers, strict=True)]
    first = {name: {} for name in ("package", "die", "cluster", "core", "l2", "l3")}  # type: dict[str, dict[object, int]]
    for cpu in sorted(named):
        for name, lowest in first.items():
            lowest.setdefault(getattr(cpu, name), cpu.number)
    found = [cpu._replace(**{name: lowest[getattr(cpu, name)] for name, lowest in first.items()}) for cpu in named]
    found = [cpu._replace(node=getattr(cpu, level) % nodes) for cpu in found]
    own = source.sample(found, source.randint(1, len(found))) if source.random() < 0.7 else found
    homes = tuple(HostNode(node, sum(cpu.node == node for cpu in found), source.choice([0, 64, 96]) * 64, True,
                           tuple(10 if one == node else 20 for one in range(nodes))) for node in range(nodes))  # fmt: skip
    return Allocation(tuple(sorted(own)), homes, len(found))


def together(count: int, key: Callable[[int], object]) -> set[frozenset[int]]:
    """Return which of so many vCPUs have the same key."""
    return {
        frozenset(place for place in range(count) if key(place) == one) for one in {key(place) for place in range(count)}
    }


def differing(part: Allocation, found: Topology, names: Sequence[str]) -> set[str]:
    """Return the levels at which guest and host are not isomorphic: that of a vCPU, as QEMU counts, against that of its CPU."""
    cpus, shape, count = {cpu.number: cpu for cpu in part.cpus}, found.shape, found.shape.cpus
    spans = {"thread": shape.threads, "cluster": shape.threads * shape.cores, "die": shape.threads * shape.cores * shape.clusters,
             "socket": shape.most // shape.sockets}  # fmt: skip
    keys: dict[str, Callable[[HostCpu], object]] = {
        "thread": lambda cpu: cpu.core, "cluster": lambda cpu: cpu.cluster, "die": lambda cpu: (cpu.die, cpu.l3),
        "socket": lambda cpu: cpu.package,
    }  # fmt: skip

    def host(name: str) -> set[frozenset[int]]:
        return together(count, lambda place: keys[name](cpus[found.cpus[place]]))

    guest = {name: together(count, lambda place, span=span: place // span) for name, span in spans.items()}  # type: ignore[misc]
    if shape.clusters == 1 and host("cluster") in (host("thread"), host("die")):
        guest["cluster"] = host("cluster")  # no level of its own
    return {name for name in names if guest[name] != host(name)}


@pytest.mark.parametrize("seed", range(400))
def test_a_guest_is_its_part_of_the_host_or_the_plan_says_why_not(seed: int) -> None:
    source = random.Random(seed)
    part = make_part(source)
    clusters = source.random() < 0.5
    found = plan_topology(part, len(part.cpus), 0, True, clusters)
    assert (
        sorted(found.cpus) == [cpu.number for cpu in part.cpus] and found.shape.cpus == len(part.cpus) <= found.shape.most
    )
    said = {one.level for one in found.flattened}
    assert differing(part, found, ("socket", "die", "cluster", "thread")) <= said
    assert all(one.why for one in found.flattened)
    cpus = {cpu.number: cpu for cpu in part.cpus}
    span = found.shape.threads * found.shape.cores * found.shape.clusters
    assert found.l3 == (
        together(len(part.cpus), lambda place: cpus[found.cpus[place]].l3)
        == together(len(part.cpus), lambda place: place // span)
    )
    assert found.l3 or "l3" in said
    memory = source.randint(64, 4096) * 2
    whole = plan_nodes(part, found, memory, 2)
    if whole.nodes:
        assert sorted(place for node in whole.nodes for place in node.cpus) == [*range(len(part.cpus))]
        assert all({cpus[found.cpus[place]].node for place in node.cpus} == {node.host} for node in whole.nodes)
        assert sum(node.memory for node in whole.nodes) == memory and all(node.memory % 2 == 0 for node in whole.nodes)
    elif len(part.nodes) > 1:
        assert "node" in {one.level for one in whole.flattened}


def test_nothing_is_flattened_that_fits() -> None:
    """Any counts at all are shown as they are where every group is as large as its like."""
    for sockets, dies, clusters, cores, threads in itertools.product((1, 2), (1, 3), (1, 2), (2, 3), (1, 2)):
        places = itertools.product(range(sockets), range(dies), range(clusters), range(cores), range(threads))
        cpus = []
        for number, here in enumerate(places):
            base = [
                number - number % span
                for span in (dies * clusters * cores * threads, clusters * cores * threads, cores * threads, threads)
            ]
            cpus.append(HostCpu(number, *base, 0, base[2], base[1], clusters * cores * threads))
            assert here
        part = Allocation(tuple(cpus), (HostNode(0, len(cpus), 64, True, (10,)),), len(cpus))
        found = plan_topology(part, len(cpus), 0, True, True)
        assert tuple(found.shape) == (len(cpus), sockets, dies, clusters, cores, threads) and not found.flattened
        assert found.whole_l3 and found.l2 == (clusters > 1)

"""Machines as their /sys describes them, in short: real ones, whose groups of CPUs are as their owners or vendors published
them.

Kunpeng 920, the hybrid Core, the Opteron, Xeons with dies and with offline CPUs are those of hwloc's public test
topologies; the others follow the tuning guides of AMD, Intel and NVIDIA and what Linux makes of such CPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pcocc_runtime.cpulist import parse_cpu_list
from pcocc_runtime.documents.hardware import Allocation
from pcocc_runtime.system.hardware import read_part

GIB = 1024


class Machine(NamedTuple):
    """Groups of CPUs, each as a list in the kernel's format, by level; nodes as (CPUs, MiB) with a row of distances each."""

    package: tuple[str, ...]
    core: tuple[str, ...]
    l2: tuple[str, ...]
    l3: tuple[str, ...]
    nodes: tuple[tuple[str, int], ...]
    distances: tuple[tuple[int, ...], ...]
    die: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()
    topoext: bool = False
    old: bool = False  # a kernel before 5.x: no *_cpus_list, and no file of the CPUs that are online

    @property
    def cpus(self) -> tuple[int, ...]:
        """Return the numbers of all CPUs that are online."""
        return parse_cpu_list(",".join(self.package))


def runs(first: int, last: int, size: int) -> tuple[str, ...]:
    """Return lists of CPUs that follow each other."""
    return tuple(f"{one}-{one + size - 1}" if size > 1 else str(one) for one in range(first, last, size))


def pairs(cores: int) -> tuple[str, ...]:
    """Return two threads a core as Linux numbers them on most servers: the second ones after all first ones."""
    return tuple(f"{core},{core + cores}" for core in range(cores))


def twice(cores: int, size: int) -> tuple[str, ...]:
    """Return groups of `size` cores with both threads."""
    return tuple(f"{first}-{first + size - 1},{first + cores}-{first + cores + size - 1}" for first in range(0, cores, size))


def even(count: int, near: int = 12, far: int = 32, socket: int = 0) -> tuple[tuple[int, ...], ...]:
    """Return distances of nodes, `socket` of which are in one socket."""
    socket = socket or count
    return tuple(
        tuple(10 if i == j else near if i // socket == j // socket else far for j in range(count)) for i in range(count)
    )


def epyc(node: int, memory: int, distances: tuple[tuple[int, ...], ...]) -> Machine:
    """Return two sockets of 64 cores, 8 cores an L3 cache, and nodes of so many cores and so much memory."""
    memories = tuple((one, memory) for one in twice(128, node))
    return Machine(
        twice(128, 64), pairs(128), pairs(128), twice(128, 8), memories, distances, twice(128, 64), topoext=True
    )


MACHINES = {
    "epyc-2-nodes": epyc(64, 256 * GIB, even(2, socket=1)),
    "epyc-8-nodes": epyc(16, 64 * GIB, even(8, socket=4)),
    # two sockets of 32 cores with sub-NUMA clusters: a socket's L3 cache belongs to all of its four nodes
    "xeon-snc4": Machine(
        twice(64, 32),
        pairs(64),
        pairs(64),
        twice(64, 32),
        tuple((one, 64 * GIB) for one in twice(64, 8)),
        even(8, 12, 21, 4),
        twice(64, 32),
        pairs(64),
    ),
    "hybrid": Machine(
        ("0-19",),
        (*runs(0, 12, 2), *runs(12, 20, 1)),
        (*runs(0, 12, 2), "12-15", "16-19"),
        ("0-19",),
        (("0-19", 31728),),
        ((10,),),
        ("0-19",),
        (*runs(0, 12, 2), "12-15", "16-19"),
    ),
    # 72 cores of one thread, and the memory of a GPU as a node without CPUs
    "grace": Machine(
        ("0-71", "72-143"),
        runs(0, 144, 1),
        runs(0, 144, 1),
        ("0-71", "72-143"),
        (("0-71", 240 * GIB), ("72-143", 240 * GIB), ("", 96 * GIB)),
        ((10, 40, 80), (40, 10, 80), (80, 80, 10)),
    ),
    "kunpeng": Machine(
        ("0-63", "64-127"),
        runs(0, 128, 1),
        runs(0, 128, 1),
        runs(0, 128, 32),
        tuple((one, 128 * GIB) for one in runs(0, 128, 32)),
        ((10, 16, 32, 33), (16, 10, 25, 32), (32, 25, 10, 16), (33, 32, 16, 10)),
        runs(0, 128, 1),
        runs(0, 128, 4),
    ),
    "opteron": Machine(
        runs(0, 64, 16),
        runs(0, 64, 2),
        runs(0, 64, 2),
        runs(0, 64, 8),
        tuple((one, 8 * GIB if place == 5 else 16 * GIB) for place, one in enumerate(runs(0, 64, 8))),
        (
            (10, 16, 16, 22, 16, 22, 16, 22),
            (16, 10, 22, 16, 16, 22, 22, 16),
            (16, 22, 10, 16, 16, 16, 16, 16),
            (22, 16, 16, 10, 16, 16, 22, 22),
            (16, 16, 16, 16, 10, 16, 16, 22),
            (22, 22, 16, 16, 16, 10, 22, 16),
            (16, 22, 16, 22, 16, 22, 10, 16),
            (22, 16, 16, 22, 22, 16, 16, 10),
        ),
        topoext=True,
        old=True,
    ),
    "xeon-dies": Machine(
        runs(0, 64, 16),
        runs(0, 64, 2),
        runs(0, 64, 2),
        runs(0, 64, 8),
        tuple((one, 256) for one in runs(0, 64, 4)),
        even(16, 20, 20),
        runs(0, 64, 8),
    ),
    "offline": Machine(
        ("0,4,8,12", "1,9", "3,7,11,15", "6,10"),
        ("0,8", "4,12", "1,9", "3,11", "7,15", "6", "10"),
        ("0,8", "4,12", "1,9", "3,11", "7,15", "6", "10"),
        ("0,4,8,12", "1,9", "3,7,11,15", "6,10"),
        (("0-15", 16379),),
        ((10,),),
        old=True,
    ),
    # what tests/node-machine is: two sockets of two cores, or of one with two threads
    "small": Machine(
        ("0-1", "2-3"),
        runs(0, 4, 1),
        runs(0, 4, 1),
        ("0-1", "2-3"),
        (("0-1", 2 * GIB), ("2-3", 2 * GIB)),
        even(2, far=21, socket=1),
    ),
    "small-threads": Machine(*[("0-1", "2-3")] * 4, (("0-1", 2 * GIB), ("2-3", 2 * GIB)), even(2, far=21, socket=1)),
    "eight": Machine(
        twice(4, 2), pairs(4), pairs(4), twice(4, 2), (("0-1,4-5", 2 * GIB), ("2-3,6-7", 6 * GIB)), even(2, far=21, socket=1)
    ),
}


def write_machine(machine: Machine, root: Path, mems: str | None = None) -> tuple[str, str]:
    """Write the files of a machine, for a process that may use the memory of `mems`; return what stands for /sys/devices/system
    and /proc."""
    cpu, node = root / "sys/cpu", root / "sys/node"
    old = machine.old
    levels = {
        "core_siblings_list" if old else "package_cpus_list": machine.package,
        "thread_siblings_list" if old else "core_cpus_list": machine.core,
        "die_cpus_list": machine.die,
        "cluster_cpus_list": machine.cluster,
    }
    for name, groups in levels.items():
        _write_groups(cpu, f"topology/{name}", groups)
    for index, (level, kind, groups) in enumerate(
        ((1, "Data", machine.core), (1, "Instruction", machine.core), (2, "Unified", machine.l2), (3, "Unified", machine.l3))
    ):
        _write_groups(cpu, f"cache/index{index}/shared_cpu_list", groups)
        for one in machine.cpus if groups else ():
            (cpu / f"cpu{one}/cache/index{index}/level").write_text(f"{level}\n")
            (cpu / f"cpu{one}/cache/index{index}/type").write_text(f"{kind}\n")
    if not old:
        (cpu / "online").write_text(f"{','.join(machine.package)}\n")
    for number, ((members, memory), row) in enumerate(zip(machine.nodes, machine.distances, strict=True)):
        home = node / f"node{number}"
        home.mkdir(parents=True)
        (home / "cpulist").write_text(f"{members}\n")
        (home / "distance").write_text(f"{' '.join(map(str, row))}\n")
        (home / "meminfo").write_text(f"Node {number} MemTotal:       {memory << 10} kB\nNode {number} MemFree:  1 kB\n")
    (node / "online").write_text(f"0-{len(machine.nodes) - 1}\n")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/status").write_text(f"Name:\tpython3\nMems_allowed_list:\t{mems or f'0-{len(machine.nodes) - 1}'}\n")
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {'topoext' if machine.topoext else 'vme'} sse\n")
    return f"{root}/sys", f"{root}/proc"


def _write_groups(cpu: Path, name: str, groups: tuple[str, ...]) -> None:
    for group in groups:
        for one in parse_cpu_list(group):
            path = cpu / f"cpu{one}/{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{group}\n\0")  # the kernel of the Kunpeng ended its files so


def pretend(directory: Path, name: str, cpus: range) -> Allocation:
    """Return the part of a machine that a task would hold there, with its memory on the nodes that this machine has."""
    system, proc = write_machine(MACHINES[name], directory / "machine")
    return read_part(cpus, system, proc)

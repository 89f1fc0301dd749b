"""How much of a task's memory its guest gets, as QEMU itself needs the rest, and from which NUMA nodes it comes."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from pcocc_runtime.cpulist import render_cpu_list
from pcocc_runtime.documents.hardware import Topology
from pcocc_runtime.errors import RequestError

# MiB QEMU 7.2 needs beside the guest's RAM, measured as the memory cgroup's peak: devices, threads, page
# tables, and for TCG its translation buffer (64 MiB) and the structures around it.
BASE_OVERHEAD = {"kvm": 96, "tcg": 192}
KEEPER_OVERHEAD = 24  # and its ssh
VIRTIOFSD_OVERHEAD = 16  # each
SMALLEST_GUEST = 64


def guest_memory(task: int, accel: str, daemons: int = 0) -> int:
    """Return the guest's RAM in MiB for a task of `task` MiB, in which `daemons` virtiofsd run, too.

    RequestError when too little remains.
    """
    overhead = BASE_OVERHEAD[accel] + KEEPER_OVERHEAD + daemons * VIRTIOFSD_OVERHEAD + task // 64
    guest = task - overhead
    if guest < SMALLEST_GUEST:
        raise RequestError(
            f"a task of {task} MiB is too small for a VM: QEMU itself needs {overhead} MiB of it",
            hint=f"ask for more memory, for example --mem-per-cpu={overhead + 256}M",
        )
    return guest


class Backing(NamedTuple):
    """How the host gives guest memory: KiB of a huge page or 0, whether before the guest starts, and without swap."""

    page: int = 0
    prealloc: bool = False
    lock: bool = False

    @property
    def step(self) -> int:
        """Return the MiB that each node's memory must be a multiple of."""
        return max(self.page >> 10, 2)


ORDINARY = Backing()
_MOST_THREADS = 16  # that preallocate a node's pages at the same time


def plan_memory(
    size: int, topology: Topology, backing: Backing, shared: bool, has: Set[str]
) -> tuple[list[str], str, list[str]]:
    """Return the options of memory backends, of -machine and of NUMA nodes; `shared` with other processes.

    There is a backend for each node, bound to its host node; an ordinary guest on a host with one node needs none.
    """
    lock = ["-overcommit", "mem-lock=on"] if backing.lock else []
    nodes = topology.nodes
    if len(nodes) < 2:
        bound = nodes[0].policy if nodes and "host-nodes" in has else ""
        if not bound and not shared and backing == Backing(lock=backing.lock):
            return lock, "", []
        threads = topology.shape.cpus if "prealloc-threads" in has else 0
        return [*lock, *_backend("ram", size, backing, shared, threads, bound)], ",memory-backend=ram", []
    objects, words = lock, list[str]()
    for number, node in enumerate(nodes):
        if node.memory:
            bound = node.policy if "host-nodes" in has else ""
            objects += _backend(
                f"ram{number}", node.memory, backing, shared,
                len(node.cpus) if "prealloc-threads" in has else 0, bound,
            )
        memory = f",memdev=ram{number}" if node.memory else ""
        last = node.cpus[-1] == topology.shape.cpus - 1
        cpus = [
            *node.cpus,
            *(range(topology.shape.cpus, topology.shape.most) if last else ()),
        ]  # the latter are not plugged in
        runs = (f",cpus={run}" for run in render_cpu_list(cpus).split(","))
        words += ["-numa", f"node,nodeid={number}{memory}{''.join(runs)}"]
    for number, row in enumerate(topology.distances):
        for other, value in enumerate(row):
            if other != number:
                words += ["-numa", f"dist,src={number},dst={other},val={value}"]
    return objects, "", words


def _backend(name: str, size: int, backing: Backing, shared: bool, threads: int, bound: str) -> list[str]:
    kind = "memory-backend-memfd" if shared or backing.page else "memory-backend-ram"
    share = ",share=on" if shared or backing.page else ""
    huge = f",hugetlb=on,hugetlbsize={backing.page}K" if backing.page else ""
    parallel = f",prealloc-threads={min(threads, _MOST_THREADS)}" if threads else ""
    prealloc = f",prealloc=on{parallel}" if backing.prealloc or backing.page else ""
    return ["-object", f"{kind},id={name},size={size}M{share}{huge}{bound}{prealloc}"]

"""What this process holds of its node: its CPUs, how they are connected, and the NUMA nodes (sysfs).

Only the process's own CPUs are read, and once for each group of them: 128 cores take two or three milliseconds.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from pcocc_runtime.cpulist import parse_cpu_list
from pcocc_runtime.documents.hardware import Allocation, HostCpu, HostNode
from pcocc_runtime.system.libc import LIBC

_CACHES = 8  # indexes to look at, at most
_MPOL_BIND, _MPOL_LOCAL_MAX = 2, 1024  # linux/mempolicy.h; nodes that a mask has room for
_SYS_GET_MEMPOLICY = 239  # x86-64

_Cpus = tuple[int, ...]  # that are together, in order


def read_part(cpus: Iterable[int], system: str = "/sys/devices/system", proc: str = "/proc") -> Allocation:
    """Return what a task that may run on these CPUs holds, without levels that /sys does not tell, or tells wrongly."""
    own = sorted(cpus)
    nodes = _read_nodes(f"{system}/node", _read_mems(proc))
    homes = {cpu: node.number for node, members in nodes for cpu in members}
    online = parse_cpu_list(_read(f"{system}/cpu/online")) or tuple(own)
    group = _Groups(f"{system}/cpu", own)
    packages = group.read("topology/package_cpus_list", "topology/core_siblings_list")
    cores = group.read("topology/core_cpus_list", "topology/thread_siblings_list")
    dies = group.read("topology/die_cpus_list")
    clusters = group.read("topology/cluster_cpus_list")
    clustered = any(len(members) > len(cores.get(cpu, (cpu,))) for cpu, members in clusters.items())
    # only guests with clusters need to know who shares an L2
    l2, l3 = group.read_cache(2) if clustered else {}, group.read_cache(3)
    nest, found = _Nest(), []
    for cpu in own:
        core, shared = cores.get(cpu, (cpu,)), l3.get(cpu, ())
        package = nest.find(core, packages.get(cpu), None) or core
        cluster = nest.find(core, clusters.get(cpu), package) or core
        die = nest.find(cluster, dies.get(cpu), package) or package
        found.append(HostCpu(
            cpu, package[0], die[0], cluster[0], core[0], homes.get(cpu) if nodes else 0, l2.get(cpu, core)[0],
            shared[0] if shared else None, len(shared),
        ))  # fmt: skip
    return Allocation(tuple(found), tuple(node for node, _members in nodes), len(online), _read_topoext(proc))


class _Nest:
    """Finds groups that lie within others; each is made a set once, as the CPUs of a group share it."""

    def __init__(self) -> None:
        # by a group's identity, with the group, which so stays alive
        self.sets: dict[int, tuple[_Cpus, frozenset[int]]] = {}

    def find(self, inner: _Cpus, middle: _Cpus | None, outer: _Cpus | None) -> _Cpus | None:
        """Return the middle group if it lies between the others, where there are any.

        Firmware may report dies of one CPU each, within clusters of four (Kunpeng 920).
        """
        if middle is None or not self._make(middle).issuperset(inner):
            return None
        return middle if outer is None or middle is outer or self._make(middle) <= self._make(outer) else None

    def _make(self, group: _Cpus) -> frozenset[int]:
        if id(group) not in self.sets:
            self.sets[id(group)] = group, frozenset(group)
        return self.sets[id(group)][1]


def read_own_cpus() -> set[int]:
    """Return the CPUs that this process may run on: its affinity, within its cgroup's cpuset, without offline ones."""
    return os.sched_getaffinity(0)


def read_free_pages(node: int | None, kibibytes: int, system: str = "/sys", proc: str = "/proc") -> int:
    """Return how many free huge pages of a size, on one NUMA node or all, this process's cgroups allow (hugetlb)."""
    base = f"{system}/devices/system/node/node{node}" if node is not None else f"{system}/kernel/mm"
    free = _number(_read(f"{base}/hugepages/hugepages-{kibibytes}kB/free_hugepages"))
    name = f"{kibibytes >> 20}GB" if kibibytes >> 20 else f"{kibibytes >> 10}MB"
    for folder, limit, usage in _hugetlb_files(_read(f"{proc}/self/cgroup"), f"{system}/fs/cgroup", name):
        most = _read(f"{folder}/{limit}")
        if most.isdigit():
            free = min(free, max(int(most) - _number(_read(f"{folder}/{usage}")), 0) // (kibibytes << 10))
    return free


def _hugetlb_files(text: str, root: str, name: str) -> list[tuple[str, str, str]]:
    """Return (directory, limit, usage) of a hugetlb cgroup and those above; `text` is /proc/PID/cgroup (cgroups(7))."""
    found = []
    for line in text.splitlines():
        _number_of, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" or "hugetlb" in controllers.split(","):
            base = f"{root}/hugetlb" if controllers else root
            kinds = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
            names = (f"hugetlb.{name}.{kinds[0]}", f"hugetlb.{name}.{kinds[1]}")
            parts = [part for part in path.split("/") if part]
            found += [("/".join([base, *parts[:depth]]), *names) for depth in range(len(parts) + 1)]
    return found


class _Groups:
    """Reads which CPUs belong together, once for each group."""

    def __init__(self, base: str, own: list[int]) -> None:
        self.base, self.own = base, own

    def read(self, *names: str) -> dict[int, _Cpus]:
        """Return the group of each CPU by the first of these files that there is."""
        ends = {*self.own[:1], *self.own[-1:]}
        known = [name for name in names if any(_read(f"{self.base}/cpu{cpu}/{name}") for cpu in ends)]
        found: dict[int, _Cpus] = {}
        for cpu in self.own if known else ():
            if cpu not in found:
                texts = (_read(f"{self.base}/cpu{cpu}/{name}") for name in known)
                members = parse_cpu_list(next(filter(None, texts), ""))
                if cpu in members:
                    found |= dict.fromkeys(members, members)
        return found

    def read_cache(self, level: int) -> dict[int, _Cpus]:
        """Return who shares the data cache of this level with each CPU."""
        found: dict[int, _Cpus] = {}
        place = 0
        while place < _CACHES:
            one = f"{self.base}/cpu{self.own[0] if self.own else 0}/cache/index{place}"
            kind = _read(f"{one}/level")
            if not kind:
                break
            if kind == str(level) and _read(f"{one}/type") != "Instruction":
                found = self.read(f"cache/index{place}/shared_cpu_list")
            place += 1
        return found


def _read_nodes(base: str, usable: tuple[int, ...] | None) -> list[tuple[HostNode, tuple[int, ...]]]:
    """Return the NUMA nodes by number, each with its CPUs."""
    numbers = parse_cpu_list(_read(f"{base}/online"))
    found = []
    for number in numbers:
        members = parse_cpu_list(_read(f"{base}/node{number}/cpulist"))
        words = _read(f"{base}/node{number}/distance").split()
        distances = tuple(int(word) for word in words if word.isdigit())
        memory = _memory_of(_read(f"{base}/node{number}/meminfo"))
        node = HostNode(
            number,
            len(members),
            memory,
            usable is None or number in usable,
            distances if len(distances) == len(numbers) else (),
        )
        found.append((node, members))
    return found


def _memory_of(text: str) -> int | None:
    """Return MiB of a node's meminfo, whose lines begin with the node's name; None when it does not tell."""
    line = next((line for line in text.splitlines() if "MemTotal:" in line), "")
    size = line.partition("MemTotal:")[2].removesuffix("kB").strip()
    return int(size) >> 10 if size.isdecimal() and size.isascii() else None


def _read_mems(proc: str) -> tuple[int, ...] | None:
    """Return the nodes whose memory this process may use: its cgroup's cpuset and Slurm's --mem-bind decide."""
    lines = _read(f"{proc}/self/status", 16384).splitlines()
    allowed = next((line.partition(":")[2] for line in lines if line.startswith("Mems_allowed_list:")), "")
    found = parse_cpu_list(allowed)
    bound = _read_policy() if proc == "/proc" else None
    if bound is not None:
        found = tuple(node for node in found if node in bound)
    return found or None


def _read_policy() -> set[int] | None:
    """Return the nodes that this process's memory is bound to by get_mempolicy(2), None when by no such policy."""
    mode, mask = ctypes.c_int(), (ctypes.c_ulong * (_MPOL_LOCAL_MAX // 64))()
    if (
        LIBC.syscall(_SYS_GET_MEMPOLICY, ctypes.byref(mode), mask, ctypes.c_ulong(_MPOL_LOCAL_MAX + 1), None, 0)
        or mode.value != _MPOL_BIND
    ):
        return None
    return {place * 64 + bit for place, word in enumerate(mask) for bit in range(64) if word >> bit & 1}


def _read_topoext(proc: str) -> bool:
    """Tell whether the first CPU has AMD's flag topoext; no more of the file is read, as making it takes time."""
    lines = _read(f"{proc}/cpuinfo", 4096).splitlines()
    return any(line.startswith("flags") and "topoext" in line.split() for line in lines)


def read_cpu_name(proc: str = "/proc") -> str:
    """Return what the kernel calls the host's CPU, empty where it does not say."""
    lines = _read(f"{proc}/cpuinfo").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _read(path: str, size: int = 65536) -> str:
    """Return a small file of /sys or /proc, an empty text when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, size).decode(errors="replace").strip("\0\n ")
    except OSError:
        return ""
    finally:
        os.close(fd)

"""Nodes without memory, cpusets that leave odd parts, and a /sys of which files are missing, unreadable or nonsense."""

import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.documents.hardware import Topology
from pcocc_runtime.qemu.cpu import plan_cpu, plan_smp
from pcocc_runtime.qemu.memory import Backing, plan_memory
from pcocc_runtime.qemu.topology import plan_nodes, plan_topology
from pcocc_runtime.system.hardware import read_part
from tests.machines import MACHINES, Machine, write_machine

SIZE = 4096  # MiB of a guest


def plan(own: tuple[int, ...], system: str, proc: str, memory: int = SIZE, step: int = 2) -> Topology:
    """Return the topology of a guest with all CPUs of a task."""
    part = read_part(own, system, proc)
    return plan_nodes(part, plan_topology(part, len(own), 0, True, False), memory, step)


def said(found: Topology, level: str) -> list[str]:
    """Return what is told of a level."""
    return [one.why for one in found.flattened if one.level == level]


def change_memory(machine: Machine, **sizes: int) -> Machine:
    """Return a machine in which some nodes have so many MiB."""
    nodes = tuple((cpus, sizes.get(f"node{number}", memory)) for number, (cpus, memory) in enumerate(machine.nodes))
    return machine._replace(nodes=nodes)


def test_cpus_of_a_node_without_memory_are_a_guest_node_without_memory(tmp_path: Path) -> None:
    where = write_machine(change_memory(MACHINES["epyc-8-nodes"], node1=0), tmp_path)
    found = plan((14, 15, 16, 17, 18, 19), *where)
    assert [(node.host, node.memory, len(node.cpus)) for node in found.nodes] == [(0, SIZE, 2), (1, 0, 4)]
    assert said(found, "memory") == ["the task holds none on node 1"] and not said(found, "node")


def test_a_task_on_nodes_without_memory_has_its_guests_memory_where_the_kernel_puts_it(tmp_path: Path) -> None:
    found = plan((2, 3), *write_machine(change_memory(MACHINES["small"], node1=0), tmp_path))
    assert not found.nodes and found.cpus == (2, 3)
    assert said(found, "node") == ["the NUMA nodes that its CPUs are on have no memory that the task may use"]


def test_memory_that_only_a_node_without_cpus_may_give_is_not_bound(tmp_path: Path) -> None:
    """A GPU's memory as a node of its own, to which --mem-bind holds the task."""
    found = plan(tuple(range(72)), *write_machine(MACHINES["grace"], tmp_path, mems="2"))
    assert not found.nodes and said(found, "node")


def test_unequal_nodes_give_in_proportion(tmp_path: Path) -> None:
    where = write_machine(change_memory(MACHINES["small"], node0=1024, node1=3072), tmp_path)
    assert [(node.memory, node.strict) for node in plan((0, 1, 2, 3), *where, 2048).nodes] == [(512, True), (1536, True)]
    assert [node.memory for node in plan((0, 1, 2), *where, 2560).nodes] == [1024, 1536]


def test_a_share_smaller_than_a_page_is_told(tmp_path: Path) -> None:
    where = write_machine(change_memory(MACHINES["small"], node0=256, node1=65536), tmp_path)
    found = plan((0, 1, 2, 3), *where, 4096, 1024)
    assert [node.memory for node in found.nodes] == [0, 4096]
    assert said(found, "memory") == ["the guest's share on node 0 is smaller than a page"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("node/node1/cpulist", "the host does not say on which NUMA node CPUs 2-3 are"),
        ("node/node1/meminfo", "the host does not say how much memory NUMA node 1 has"),
        ("node/node0/meminfo", "the host does not say how much memory NUMA node 0 has"),
    ],
)
@pytest.mark.parametrize("text", [None, "", "nonsense", "Node 1 MemTotal: much kB"])
def test_what_sys_does_not_tell_of_nodes_is_no_guess(tmp_path: Path, path: str, why: str, text: str | None) -> None:
    system, proc = write_machine(MACHINES["small"], tmp_path)
    Path(system, path).unlink()
    if text is not None:
        Path(system, path).write_text(text)
    found = plan((0, 1, 2, 3), system, proc)
    assert not found.nodes and said(found, "node") == [why] and tuple(found.shape) == (4, 2, 1, 1, 2, 1)


def test_the_node_of_others_may_be_unknown(tmp_path: Path) -> None:
    system, proc = write_machine(MACHINES["small"], tmp_path)
    Path(system, "node/node1/cpulist").unlink()
    assert [node.host for node in plan((0, 1), system, proc).nodes] == [0]


def test_a_kernel_without_numa_is_one_node(tmp_path: Path) -> None:
    system, proc = write_machine(MACHINES["small"], tmp_path)
    for file in sorted(Path(system, "node").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    found = plan((0, 1, 2, 3), system, proc)
    assert not found.nodes and not found.flattened


def make_directory(path: Path) -> None:
    """Put what cannot be read in a file's place."""
    path.unlink()
    path.mkdir()


BREAKS: tuple[Callable[[random.Random, Path, list[Path]], object], ...] = (
    lambda _source, path, _files: path.unlink(),
    lambda _source, path, _files: make_directory(path),
    lambda _source, path, _files: path.write_bytes(b""),
    lambda source, path, _files: path.write_bytes(source.randbytes(source.randint(1, 40))),
    lambda source, path, files: path.write_bytes(source.choice([one for one in files if one.is_file()]).read_bytes()),
    lambda source, path, _files: path.write_text(source.choice(["0-1023", "-1", "99999999999", "0", "3-1", "0,0", "10 10"])),
)


def break_files(source: random.Random, root: Path) -> None:
    """Break some files of a machine, or one file of each of its CPUs or nodes."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    names = sorted({path.name for path in files})
    chosen = (
        source.sample(files, source.randint(1, 12))
        if source.random() < 0.6
        else [path for path in files if path.name == source.choice(names)]
    )
    one = source.choice(BREAKS)
    for path in chosen:
        if path.is_file():
            (one if source.random() < 0.5 else source.choice(BREAKS))(source, path, files)


def make_odd(seed: int, root: Path) -> tuple[Topology, int]:
    """Return the topology of a part of a machine of which files are broken, and how many CPUs the part has."""
    source = random.Random(seed)
    machine = MACHINES[source.choice(["small", "small-threads", "eight", "hybrid", "offline"])]
    system, proc = write_machine(machine, root)
    break_files(source, root)
    own = tuple(sorted(source.sample(machine.cpus, source.randint(1, len(machine.cpus)))))
    return plan(own, system, proc), len(own)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(150))
def test_whatever_sys_says_a_guest_has_its_cpus_and_its_memory(tmp_path: Path, seed: int) -> None:
    found, count = make_odd(seed, tmp_path)
    shape = found.shape
    assert len({*found.cpus}) == shape.cpus == count <= shape.most
    levels = shape.sockets * shape.dies * shape.clusters * shape.cores * shape.threads
    assert shape.cpus > levels - levels // shape.sockets or shape.sockets == 1, "no socket is empty"
    if found.nodes:
        assert sorted(place for node in found.nodes for place in node.cpus) == [*range(count)]
        assert sum(node.memory for node in found.nodes) == SIZE
    assert not found.distances or len(found.distances) == len(found.nodes)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(150, 156))
def test_qemu_takes_it(tmp_path: Path, seed: int) -> None:
    found, _count = make_odd(seed, tmp_path)
    here = replace(found, nodes=tuple(one._replace(host=0, memory=one.memory // 16) for one in found.nodes))
    memory = sum(one.memory for one in here.nodes) or 64
    objects, machine, nodes = plan_memory(memory, here, Backing(), False, {"host-nodes"})
    argv = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg", "-S", *objects, "-machine"]
    argv += [f"q35{machine}", "-cpu", plan_cpu("tcg", None, here, False), "-smp", plan_smp(here), "-m", f"size={memory}M"]
    done = subprocess.run(
        [*argv, *nodes, "-monitor", "stdio"], input=b"quit\n", capture_output=True, check=False
    )
    assert done.returncode == 0 and not done.stderr, done.stderr

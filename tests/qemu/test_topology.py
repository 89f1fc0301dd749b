"""Guests that have the shape of a machine this one only pretends to be: QEMU takes the arguments, and Linux in the
guest finds the shape."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.cpulist import render_cpu_list
from pcocc_runtime.documents.cluster import Group, Mount
from pcocc_runtime.documents.hardware import TOPOLOGY_FILE, Part, decode_topology, encode_topology
from pcocc_runtime.system.hardware import read_part
from tests.machines import MACHINES, write_machine
from tests.qemu.vm import DATA, StartVm

LOOK = "; ".join([
    "cd /sys/devices/system/cpu",
    "for cpu in cpu[0-7]; do [ ! -d $cpu/topology ] ||"
    " echo $(cat $cpu/topology/physical_package_id $cpu/topology/core_cpus_list $cpu/cache/index3/shared_cpu_list); done",
    "cd ../node", "echo $(cat node*/cpulist)", "echo $(cat node*/distance)",
    "grep -h MemTotal node*/meminfo | tr -dc '0-9\\n '", "cd /",
])  # fmt: skip


def pretend(directory: Path, name: str, cpus: range) -> Part:
    """Return the part of a machine that a task would hold there, with its memory on the nodes that this machine has."""
    system, proc = write_machine(MACHINES[name], directory / "machine")
    return read_part(cpus, system, proc)


@pytest.mark.parametrize(
    ("name", "count", "sees", "nodes", "distances"),
    [
        ("eight", 8, ["0 0-1 0-3"] * 2 + ["0 2-3 0-3"] * 2 + ["1 4-5 4-7"] * 2 + ["1 6-7 4-7"] * 2, "0-3 4-7", "10 21 21 10"),
        ("eight", 7, ["0 0-1 0-3"] * 2 + ["0 2-3 0-3"] * 2 + ["1 4-5 4-6"] * 2 + ["1 6 4-6"], "0-3 4-6", "10 21 21 10"),
    ],
)  # fmt: skip
def test_a_guest_finds_the_shape_of_its_part(
    start: StartVm, tmp_path: Path, name: str, count: int, sees: list[str], nodes: str, distances: str
) -> None:
    part = pretend(tmp_path, name, range(count))
    vm = start(Group("t", 1, cpus=count), part=part).boot()
    lines = vm.run(LOOK).splitlines()
    assert lines[:count] == sees
    assert lines[count : count + 2] == [nodes, distances]
    second = int(lines[-1].split()[-1]) >> 10
    assert 288 * (3 if count == 8 else 2.25) / (4 if count == 8 else 3.25) - 20 < second  # MiB, less what the kernel takes
    flags = vm.run("grep -m 1 ^flags /proc/cpuinfo").split()
    assert {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"} <= {*flags}  # of x86-64-v3


def test_memory_is_bound_where_the_task_holds_it(start: StartVm, tmp_path: Path) -> None:
    """This machine has one node: bound to it, and shared with virtiofsd all the same."""
    part = pretend(tmp_path, "eight", range(4))
    here = replace_nodes(part)
    vm = start(Group("t", 1, cpus=4, mounts=(Mount("d", DATA, "virtiofs"),)), part=here).boot()
    maps = Path(f"/proc/{vm.process.pid}/numa_maps").read_text()
    assert [line.split()[1] for line in maps.splitlines() if "memory-backend-memfd" in line or "memfd" in line] == ["bind:0"]
    assert vm.run("mkdir /d; mount -t virtiofs d /d; ls /d/log7") == "/d/log7\n"


def replace_nodes(part: Part) -> Part:
    """Return the part with all of its CPUs on node 0."""
    return part._replace(cpus=tuple(cpu._replace(node=0) for cpu in part.cpus))


def test_what_the_launcher_has_planned_is_kept_beside_the_vm(start: StartVm) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    vm = start(Group("t", 1, cpus=len(cpus))).boot()
    kept = decode_topology((vm.directory / TOPOLOGY_FILE).read_bytes())
    assert decode_topology(encode_topology(kept)) == kept
    assert (kept.pid, sorted(kept.guest.cpus), kept.cpu.partition(",")[0]) == (vm.process.pid, cpus, "max")
    argv = json.loads((vm.directory / "qemu.json").read_text())
    assert argv[argv.index("-smp") + 1].startswith(f"cpus={len(cpus)},sockets=")
    assert vm.run("cat /sys/devices/system/cpu/online") == f"{render_cpu_list(range(len(cpus)))}\n"
    assert replace(kept, pid=0) != kept

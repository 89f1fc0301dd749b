"""Guests with the topology of a machine that this one only pretends to be: QEMU accepts the arguments, and Linux in the
guest sees that topology.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.cpulist import render_cpu_list
from pcocc_runtime.documents.cluster import Group, Mount
from pcocc_runtime.documents.hardware import TOPOLOGY_FILE, Allocation, decode_topology, encode_topology
from pcocc_runtime.steps import topology
from tests.machines import pretend
from tests.qemu.vm import DATA, StartVm, Vm

LOOK = "; ".join([
    "cd /sys/devices/system/cpu",
    "for cpu in cpu[0-7]; do [ ! -d $cpu/topology ] ||"
    " echo $(cat $cpu/topology/physical_package_id $cpu/topology/core_cpus_list $cpu/cache/index3/shared_cpu_list); done",
    "cd ../node", "echo $(cat node*/cpulist)", "echo $(cat node*/distance)",
    "grep -h MemTotal node*/meminfo | tr -dc '0-9\\n '", "cd /",
])  # fmt: skip


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
    """This machine has one NUMA node: the guest's memory is bound to it, and still shared with virtiofsd."""
    part = pretend(tmp_path, "eight", range(4))
    here = replace_nodes(part)
    vm = start(Group("t", 1, cpus=4, mounts=(Mount("d", DATA, "virtiofs"),)), part=here).boot()
    maps = Path(f"/proc/{vm.process.pid}/numa_maps").read_text()
    assert [line.split()[1] for line in maps.splitlines() if "memory-backend-memfd" in line or "memfd" in line] == [
        "bind:0"
    ]
    assert vm.run("mkdir /d; mount -t virtiofs d /d; ls /d/log7") == "/d/log7\n"


def replace_nodes(part: Allocation) -> Allocation:
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


def look(vm: Vm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Return what @topology says of a VM, and its exit status."""
    monkeypatch.setattr(naming, "job_dir", lambda _job: vm.directory.parent)
    status = topology.operate(vm.job, "vm0", topology.check_words(words))
    return status, capsys.readouterr().out


def test_a_vm_that_runs_as_planned_passes(
    start: StartVm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    vm = start(Group("t", 1, cpus=len(cpus), memory_prealloc=True)).boot()
    status, text = look(vm, monkeypatch, capsys, "--check")
    assert status == 0 and text.splitlines()[-1] == "vm0: ok: it runs as it is planned", text
    tree = json.loads(look(vm, monkeypatch, capsys, "--json")[1])
    assert [one["allowed"] for one in tree["vcpus"]] == [[one["host"]["number"]] for one in tree["vcpus"]]
    thread = next(
        task for task in Path(f"/proc/{vm.process.pid}/task").iterdir() if (task / "comm").read_text().startswith("CPU 0")
    )
    os.sched_setaffinity(int(thread.name), cpus)
    status, text = look(vm, monkeypatch, capsys, "--check")
    assert status == 1 and f"vm0: FAILED: vCPU 0 may run on CPUs {render_cpu_list(cpus)}, but belongs on {cpus[0]}" in text


def test_pretended_cpus_are_drawn_and_told(
    start: StartVm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vm = start(Group("t", 1, cpus=8), part=pretend(tmp_path, "eight", range(8))).boot()
    status, text = look(vm, monkeypatch, capsys, "--check")
    told = [line for line in text.splitlines() if "FAILED" in line]
    here = os.sched_getaffinity(0)
    assert status == 1 and len(told) == 1 + len(here) and all("may run on CPUs" in line for line in told)
    assert f"may no longer run on CPUs {render_cpu_list({*range(8)} - here)}, where" in told[0]  # there are none of these here
    assert "node 1: 216 MiB of the host's node 0" in text.splitlines()
    assert look(vm, monkeypatch, capsys)[0] == 0


@pytest.mark.parametrize(("group", "said"), [
    (Group("t", 1, hugepages="1G"), "hugepages: 1G of template 't': the guest's memory is smaller than a page of 1G"),
    (Group("t", 1, hugepages="2M"), "free pages of 2M, but the guest needs 144"),
])  # fmt: skip
def test_huge_pages_that_there_are_not(start: StartVm, group: Group, said: str) -> None:
    vm = start(group)
    assert vm.wait() == 1
    assert said in vm.said().splitlines()[0] and len(vm.said().splitlines()) == 2


def test_auto_takes_what_there_is_and_says_so(start: StartVm) -> None:
    vm = start(Group("t", 1, hugepages="auto")).boot()
    assert "pcocc: vm0 on here: ordinary memory is used instead of huge pages: " in vm.said()

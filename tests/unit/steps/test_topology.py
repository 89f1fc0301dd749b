"""The operation @topology on a real QEMU that stands still."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.cpulist import render_cpu_list
from pcocc_runtime.documents.hardware import (
    TOPOLOGY_FILE,
    Allocation,
    GuestNode,
    HostCpu,
    HostNode,
    Shape,
    Topology,
    VmTopology,
    encode_topology,
)
from pcocc_runtime.errors import NodeError
from pcocc_runtime.qemu.cpu import plan_smp
from pcocc_runtime.qemu.memory import Backing, plan_memory
from pcocc_runtime.steps import topology
from tests.waiting import wait_for

SHAPE = Shape(7, 2, 1, 1, 2, 2)
PART = Allocation(tuple(HostCpu(cpu, 0, 0, cpu, cpu, 0, cpu, 0, 8) for cpu in range(7)), (HostNode(0, 8, 100, True, (10,)),), 8)
GUEST = Topology(
    SHAPE,
    tuple(range(7)),
    nodes=(GuestNode(0, (0, 1, 2, 3), 64), GuestNode(0, (4, 5, 6), 32)),
    distances=((10, 21), (21, 10)),
)


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The pid of vm0's QEMU, which stands still; its 7 vCPUs are bound to no CPU."""
    path = tmp_path / "vm0"
    path.mkdir()
    monkeypatch.setattr(naming, "job_dir", lambda _job: tmp_path)
    objects, _machine, nodes = plan_memory(96, GUEST, Backing(prealloc=True), False, {"host-nodes", "prealloc-threads"})
    argv = [
        "qemu-system-x86_64",
        "-nodefaults",
        "-display",
        "none",
        "-machine",
        "q35",
        "-accel",
        "tcg",
        "-S",
        "-cpu",
        "max,vendor=GenuineIntel",
        "-m",
        "96",
        "-smp",
        plan_smp(Topology(SHAPE, levels=True)),
        *objects,
        *nodes,
        "-chardev",
        f"socket,id=qmp,path={path}/qmp,server=on,wait=off",
        "-mon",
        "chardev=qmp,mode=control",
    ]
    child = subprocess.Popen(argv)
    (path / TOPOLOGY_FILE).write_bytes(encode_topology(VmTopology(child.pid, "tcg", "max", 0, PART, GUEST)))
    wait_for(lambda: (path / "qmp").exists(), "QEMU's monitor")
    yield child.pid
    child.kill()
    child.wait()


def test_it_is_where_qemu_says_and_its_threads_are_not_bound(vm: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert topology.operate(7, "vm0", topology.check_words([])) == 0
    allowed = render_cpu_list(os.sched_getaffinity(vm))
    text = capsys.readouterr().out
    told = [line for line in text.splitlines() if "FAILED" in line]
    here = os.sched_getaffinity(vm)
    lost = render_cpu_list({*range(7)} - here)
    assert told == [
        f"vm0: FAILED: the task may no longer run on CPUs {lost}, where vCPUs {lost} belong: they may run on CPUs {allowed}",
        *(f"vm0: FAILED: vCPU {place} may run on CPUs {allowed}, but belongs on {place}" for place in sorted(here)),
    ]
    assert topology.operate(7, "vm0", topology.check_words(["--check", "--json"])) == 1
    tree = json.loads(capsys.readouterr().out)
    places = [tuple(one["guest"][name] for name in ("socket-id", "core-id", "thread-id", "node-id")) for one in tree["vcpus"]]
    assert places == [(0, 0, 0, 0), (0, 0, 1, 0), (0, 1, 0, 0), (0, 1, 1, 0), (1, 0, 0, 1), (1, 0, 1, 1), (1, 1, 0, 1)]
    bound = [one["nodes"]["0"] for one in tree["memory"] if one["policy"] == "bind:0"]
    assert sum(bound) >= 96  # all of it, taken before the guest begins


def test_threads_that_are_where_they_belong_pass(vm: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = min(os.sched_getaffinity(0))
    for thread in os.listdir(f"/proc/{vm}/task"):
        os.sched_setaffinity(int(thread), {only})
    part = PART._replace(cpus=tuple(cpu._replace(number=only) for cpu in PART.cpus))
    guest = Topology(SHAPE, (only,) * 7, (only,), GUEST.nodes, GUEST.distances)
    (tmp_path / "vm0" / TOPOLOGY_FILE).write_bytes(encode_topology(VmTopology(vm, "tcg", "max", 0, part, guest)))
    assert topology.operate(7, "vm0", topology.check_words(["--check"])) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "vm0: ok: it runs as it is planned"


def test_another_versions_file_is_told(vm: int, tmp_path: Path) -> None:
    assert vm
    (tmp_path / "vm0" / TOPOLOGY_FILE).write_text("{}")
    with pytest.raises(NodeError, match=r"topology\.json cannot be read: it is not a document"):
        topology.operate(7, "vm0", topology.check_words([]))

"""QEMU accepts the arguments of every kind of topology, and has its vCPUs at the planned places."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.cpulist import parse_cpu_list
from pcocc_runtime.documents.hardware import Topology, VmTopology
from pcocc_runtime.qemu.asking import parse_answers, plan_asking_argv, render_questions
from pcocc_runtime.qemu.cpu import plan_caches, plan_cpu, plan_smp
from pcocc_runtime.qemu.memory import Backing, plan_memory
from pcocc_runtime.qemu.observed import Observed, find_differences, parse_vcpus
from pcocc_runtime.qemu.qmp import render_command
from pcocc_runtime.qemu.topology import plan_nodes, plan_topology
from pcocc_runtime.system.hardware import read_part
from tests.machines import MACHINES, write_machine

pytestmark = pytest.mark.thorough

QEMU = "/usr/bin/qemu-system-x86_64"


@pytest.fixture(scope="module")
def has() -> frozenset[str]:
    asked = subprocess.run(plan_asking_argv(QEMU, "tcg"), input=render_questions(QEMU), capture_output=True, check=True)
    found = parse_answers(asked.stdout.splitlines())
    assert found is not None
    return found.has


def start(topology: Topology, memory: int, has: frozenset[str]) -> list[dict[str, object]]:
    """Start QEMU, paused, and return what it says of its vCPUs."""
    objects, machine, nodes = plan_memory(memory, topology, Backing(), False, has)
    argv = [
        QEMU,
        "-nodefaults",
        "-display",
        "none",
        "-accel",
        "tcg",
        "-S",
        *objects,
        "-machine",
        f"q35{machine}{plan_caches(topology, has)}",
        "-cpu",
        plan_cpu("tcg", None, topology, False),
        "-smp",
        plan_smp(replace(topology, levels=True)),
        "-m",
        f"size={memory}M",
        *nodes,
        "-qmp",
        "stdio",
    ]
    told = b"".join(
        [render_command("qmp_capabilities"), render_command("query-cpus-fast", id="cpus"), render_command("quit")]
    )
    done = subprocess.run(argv, input=told, capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    [found] = [one["return"] for one in answers if one.get("id") == "cpus"]
    return list(found)


@pytest.mark.parametrize(
    ("name", "cpus", "mems"),
    [
        ("epyc-8-nodes", "0-3,8-11,128-131,136-139", ""),
        ("epyc-8-nodes", "0-4,8-12,16", ""),
        ("epyc-8-nodes", "0-4,8-10,16", ""),
        ("epyc-8-nodes", "0-1,16-17,32-33,48-49,64-65,80-81,96-97,112-113", ""),
        ("xeon-snc4", "0-2,64-65", ""),
        ("xeon-snc4", "2,64-65", ""),
        ("hybrid", "", ""),
        ("offline", "", ""),
        ("kunpeng", "0-1,64-67,96", ""),
        ("xeon-dies", "", ""),
        ("opteron", "0-62", ""),
        ("small", "0-2", ""),
        ("small-threads", "1-3", ""),
        ("eight", "", ""),
        ("eight", "", "1"),
        ("eight", "", "0"),  # a node without memory, the first one or the last
    ],
)
def test_every_kind_of_topology_is_taken(tmp_path: Path, has: frozenset[str], name: str, cpus: str, mems: str) -> None:
    own = parse_cpu_list(cpus) or MACHINES[name].cpus
    part = read_part(own, *write_machine(MACHINES[name], tmp_path, mems or None))
    planned = plan_nodes(part, plan_topology(part, len(own), 0, True, "modules" in has), 256, 2)
    here = replace(planned, nodes=tuple(one._replace(host=0) for one in planned.nodes))  # this machine may have one node only
    told = start(here, 256, has)
    allowed = {int(str(one["thread-id"])): (here.cpus[int(str(one["cpu-index"]))],) for one in told}
    seen = Observed(parse_vcpus(told, allowed), (), ())
    assert find_differences(VmTopology(1, "tcg", "max", 0, part, here, binds=False), seen) == []

"""What runs, compared with what was planned: each difference is a sentence, and no other is reported."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pcocc_runtime.documents.hardware import (
    Allocation,
    Flattened,
    GuestNode,
    HostCpu,
    HostNode,
    Shape,
    Topology,
    VmTopology,
)
from pcocc_runtime.documents.topology_answer import Lying, OtherThread, encode_topology_answer
from pcocc_runtime.qemu.observed import (
    Observed,
    find_differences,
    parse_allowed,
    parse_numa_maps,
    parse_vcpus,
    plan_topology_answer,
    render_text,
)

PART = Allocation(
    tuple(
        HostCpu(cpu, cpu // 4 * 4, cpu // 4 * 4, cpu // 2 * 2, cpu // 2 * 2, cpu // 4, cpu // 2 * 2, cpu // 4 * 4, 4)
        for cpu in range(8)
    ),
    (HostNode(0, 4, 100, True, (10, 21)), HostNode(1, 4, 100, True, (21, 10))),
    8,
)
GUEST = Topology(
    Shape(6, 2, 1, 1, 2, 2),
    (0, 1, 2, 3, 4, 5),
    (6, 7),
    (GuestNode(0, (0, 1, 2, 3), 200), GuestNode(1, (4, 5), 100)),
    ((10, 21), (21, 10)),
    flattened=(Flattened("l3", "why not"),),
)
PLANNED = VmTopology(99, "kvm", "host", 2048, PART, GUEST)
ANSWER: list[dict[str, Any]] = [
    {
        "cpu-index": place,
        "thread-id": 100 + place,
        "props": {
            "socket-id": place // 4,
            "die-id": 0,
            "core-id": place // 2 % 2,
            "thread-id": place % 2,
            "node-id": place // 4,
        },
    }
    for place in reversed(range(6))
]
MAPS = """\
7f00 bind:0 file=/memfd:memory-backend-memfd\\040(deleted) huge dirty=100 N0=100 kernelpagesize_kB=2048
7f10 bind:1 file=/memfd:memory-backend-memfd\\040(deleted) huge dirty=50 N1=50 kernelpagesize_kB=2048
7f20 default anon=300 dirty=300 active=0 N0=100 N1=300 kernelpagesize_kB=4
7f30 default file=/usr/bin/qemu mapped=300 N1=300 kernelpagesize_kB=4
7f40 default
"""
ALLOWED = {100 + place: (place,) for place in range(6)} | {99: (6, 7)}
SEEN = Observed(parse_vcpus(ANSWER, ALLOWED), parse_numa_maps(MAPS), ALLOWED[99])


def test_where_memory_lies() -> None:
    assert SEEN.memory == (Lying("bind:0", 2048, {0: 200}), Lying("bind:1", 2048, {1: 100}), Lying("default", 4, {1: 2}))
    assert parse_allowed("Name:\tx\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1,4\n") == (0, 1, 4) and parse_allowed("") == ()


def test_what_runs_as_planned_has_no_difference() -> None:
    assert find_differences(PLANNED, SEEN) == []
    flat = VmTopology(99, "tcg", "max", 0, PART, Topology(Shape(6, cores=6)))
    assert find_differences(flat, SEEN._replace(memory=())) == []


def moved(number: int, **changes: Any) -> Observed:
    vcpus = [*SEEN.vcpus]
    vcpus[number] = vcpus[number]._replace(**changes)
    return SEEN._replace(vcpus=tuple(vcpus))


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (SEEN._replace(vcpus=SEEN.vcpus[:5]), "QEMU has 5 vCPUs, but 6 are planned"),
        (moved(3, allowed=(0, 1, 2, 3)), "vCPU 3 may run on CPUs 0-3, but belongs on 3"),
        (
            SEEN._replace(vcpus=(*SEEN.vcpus[:3], *(one._replace(allowed=(0, 1, 2)) for one in SEEN.vcpus[3:]))),
            "the task may no longer run on CPUs 3-5, where vCPUs 3-5 belong: they may run on CPUs 0-2",
        ),
        (moved(3, allowed=()), "vCPU 3 may run on CPUs that are not known, but belongs on 3"),
        (
            moved(2, place={**SEEN.vcpus[2].place, "core-id": 0, "socket-id": 1}),
            "vCPU 2 is not where it is planned: core-id is 0, socket-id is 1",
        ),
        (moved(2, place={**SEEN.vcpus[2].place, "node-id": 1}), "vCPU 2 is on the guest's node 1, but belongs on 0"),
        (SEEN._replace(emulator=(0, 6)), "QEMU's own threads may run on CPUs 0,6, but belong on 6-7"),
        (SEEN._replace(others=(OtherThread("IO disk0-0", (6,)), OtherThread("vhost-99", (5, 6)))),
         "QEMU's thread 'vhost-99' may run on CPUs 5-6, but belongs on 6-7"),
        (SEEN._replace(memory=SEEN.memory[:1]), "no memory is bound to the host's node 1"),
        (
            SEEN._replace(memory=(Lying("bind:0", 2048, {0: 150, 1: 50}), *SEEN.memory[1:])),
            "50 MiB that are bound to the host's node 0 lie on node 1",
        ),
        (SEEN._replace(memory=(Lying("bind:0", 4, {0: 200}), Lying("bind:1", 4, {1: 100}))), "no memory is in pages of 2M"),
    ],
)
def test_a_difference_is_a_sentence(seen: Observed, said: str) -> None:
    assert find_differences(PLANNED, seen) == [said]


def test_a_qemu_that_cannot_bind_is_not_asked_to() -> None:
    assert find_differences(replace(PLANNED, binds=False), SEEN._replace(memory=(Lying("default", 2048, {0: 9}),))) == []


def test_it_is_drawn_side_by_side() -> None:
    seen = SEEN._replace(others=(OtherThread("IO disk0-0", (6, 7)), OtherThread("worker", (6, 7))) * 2)
    text = render_text("vm0", "n1", replace(PLANNED, devices=("eth0: 2 queues, QEMU itself",)), seen)
    lines = text.splitlines()
    assert lines[0] == "vm0 on n1: 6 CPUs, kvm, -cpu host"
    drawn = [" ".join(line.split()) for line in lines]
    assert drawn[2] == "vCPU socket die core thread node | CPU socket die core node L3 | may run on"
    assert drawn[7] == "4 1 0 0 0 1 | 4 4 4 4 1 4 | 4"
    assert "node 0: 200 MiB of the host's node 0" in lines and "bind:1, pages of 2M: 100 MiB on node 1" in lines
    assert lines[-5:] == [
        "eth0: 2 queues, QEMU itself", "QEMU's main thread may run on 6-7", "IO disk0-0 may run on 6-7", "worker may run on 6-7",
        "not as on the host: l3: why not",
    ]  # fmt: skip
    flat = VmTopology(99, "tcg", "max", 0, PART, Topology(Shape(6, cores=6)))
    assert render_text("vm0", "n1", flat, SEEN).splitlines()[3].split()[7:13] == ["any", *"-----"]


def test_programs_get_the_same() -> None:
    text = encode_topology_answer(plan_topology_answer("vm0", "n1", PLANNED, SEEN, ["x"]))
    tree = json.loads(text)
    assert text.count("\n") == 1
    assert (
        tree["vcpus"][4]["host"]["number"] == 4
        and tree["vcpus"][4]["guest"]["node-id"] == 1
        and tree["vcpus"][4]["allowed"] == [4]
    )
    assert tree["nodes"][1] == {"host": 1, "cpus": [4, 5], "memory": 100} and tree["differences"] == ["x"]
    assert tree["memory"][0] == {"policy": "bind:0", "page": 2048, "nodes": {"0": 200}}

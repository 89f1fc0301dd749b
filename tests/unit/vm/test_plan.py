"""What a launcher plans of its task's hardware: the template's settings, the site's, and what keeps the host's topology away."""

import json
import resource
from dataclasses import replace

import pytest

from pcocc_runtime.documents.abilities import PLAIN, Abilities
from pcocc_runtime.documents.cluster import Group, Mount
from pcocc_runtime.documents.hardware import Allocation, HostCpu, HostNode
from pcocc_runtime.documents.node import NodeFacts, decode_node, encode_node
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.site.site import Site
from pcocc_runtime.vm import launcher
from pcocc_runtime.vm.plan import Hardware, Task, plan_hardware
from tests.fake_node import make_facts
from tests.unit.qemu.plans import PLAN

PART = Allocation(
    tuple(HostCpu(cpu, cpu // 2 * 2, cpu // 2 * 2, cpu, cpu, cpu // 2, cpu, cpu // 2 * 2, 2) for cpu in range(4)),
    (HostNode(0, 2, 4096, True, (10, 20)), HostNode(1, 2, 4096, True, (20, 10))), 8, True,
)  # fmt: skip
TASK = Task(12, 0, 4, 1000, (), None, None)


def hardware(
    group: Group, site: Site | None = None, task: Task = TASK, abilities: Abilities = PLAIN, vms: int = 1
) -> Hardware:
    """Return what is planned on a node that has no huge pages but 4096 of 2M on all nodes together, and on each."""
    node = make_facts({"default": ()}, {"default": vms}, site=site)
    return plan_hardware(task, node, group, PART, abilities, lambda _node, size: 4096 if size == 2048 else 0)


def test_a_guest_has_the_shape_of_its_part_and_its_memory() -> None:
    found = hardware(Group("t", 1))
    assert tuple(found.topology.shape) == (4, 2, 1, 1, 2, 1) and found.topology.cpus == (0, 1, 2, 3)
    assert [node.memory for node in found.topology.nodes] == [384, 384] and found.memory == 768  # 769, in multiples of 2
    assert hardware(Group("t", 1, mounts=(Mount("d", "/d", "virtiofs"),))).memory == 752


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bind_vcpus": False}, "bind-vcpus: false leaves the vCPUs to the kernel"),
        ({"machine": "microvm"}, "machine-type microvm has no NUMA nodes and dies"),
        ({"custom_args": ("-device", "x", "-smp", "4")}, "custom-args have -smp"),
        ({"custom_args": ("--numa", "node")}, "custom-args have --numa"),
    ],
)
def test_what_keeps_it_away(changes: dict[str, object], why: str) -> None:
    found = hardware(Group("t", 1, emulator_cores=1, **changes))  # type: ignore[arg-type]
    assert (tuple(found.topology.shape), found.topology.cpus, found.topology.nodes, found.memory) == (
        (3, 1, 1, 1, 3, 1),
        (),
        (),
        769,
    )
    assert [one.why for one in found.topology.flattened] == [why]


def test_a_task_that_shares_its_cpus_has_none_of_its_own() -> None:
    fewer = replace(TASK, cpus=2)
    assert hardware(Group("t", 1), task=fewer).topology.cpus == (0, 1)  # the node has 8, and no other VM of the job
    assert hardware(Group("t", 2), task=fewer, vms=2).topology.cpus == ()


@pytest.mark.parametrize(
    ("site", "group", "page"),
    [("off", None, 0), ("auto", None, 2048), ("2M", "off", 0), ("off", "2M", 2048), ("2M", "auto", 2048)],
)
def test_the_template_counts_before_the_site(site: str, group: str | None, page: int) -> None:
    found = hardware(Group("t", 1, hugepages=group, memory_prealloc=True), Site(hugepages=site))
    assert (found.backing.page, found.backing.prealloc, found.backing.lock, found.note) == (page, True, False, "")


def test_huge_pages_that_are_not_there_are_refused_or_told() -> None:
    with pytest.raises(
        RequestError, match="hugepages: 1G of template 't': the guest's memory is smaller than a page of 1G"
    ):
        hardware(Group("t", 1, hugepages="1G"))
    large = replace(TASK, memory=1 << 16)
    assert "NUMA node 0 has 4096 free pages of 2M" in hardware(Group("t", 1, hugepages="auto"), task=large).note


def test_what_the_site_says_reaches_the_nodes() -> None:
    node = make_facts({"default": ()}, {"default": 1}, site=Site(hugepages="2M", cpu_model="Haswell"))
    found: NodeFacts = decode_node(encode_node(node), node.job)
    assert (found.hugepages, found.cpu_model) == ("2M", "Haswell")
    plain = json.loads(encode_node(make_facts({"default": ()}, {"default": 1})))
    assert not {"hugepages", "cpu_model"} & {*plain}


def test_memory_that_may_not_be_locked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1 << 20, 64 << 20)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, both: limits.append(both))
    launcher.allow_lock(60, "t")
    assert limits[-1] == (64 << 20, 64 << 20)
    with pytest.raises(
        NodeError,
        match=r"memory-lock of template 't' needs 64 MiB or more, but a task may lock only 64 MiB here \(RLIMIT_MEMLOCK\)",
    ):
        launcher.allow_lock(64, "t")


def test_an_emulated_guests_cpu_is_told() -> None:
    node = make_facts({"default": ()}, {"default": 1})
    assert launcher.explain_accelerator(node, PLAN) == "tests; its CPU is QEMU's max"
    assert launcher.explain_accelerator(node, replace(PLAN, cpu_model="Haswell,-tsx")) == "tests; its CPU is QEMU's Haswell"
    assert launcher.explain_accelerator(node, replace(PLAN, accel="kvm")) == "tests"

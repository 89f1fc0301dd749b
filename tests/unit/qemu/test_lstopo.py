"""lstopo's XML of a guest and of a host against what was planned; the text is as hwloc 2.9 and 1.11 write it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pcocc_runtime.documents.hardware import (
    Allocation,
    GuestNode,
    HostCpu,
    HostNode,
    Shape,
    Topology,
    VmTopology,
)
from pcocc_runtime.errors import RequestError
from pcocc_runtime.qemu.lstopo import (
    Drawn,
    find_guest_differences,
    find_host_differences,
    parse_bitmap,
    parse_lstopo,
)

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE topology SYSTEM "hwloc2.dtd">\n<topology version="2.0">'
PART = Allocation(
    tuple(HostCpu(cpu, cpu // 4 * 4, cpu // 4 * 4, cpu // 2 * 2, cpu // 2 * 2, cpu // 4, cpu // 2 * 2, cpu // 4 * 4, 4)
          for cpu in range(8, 15)),
    (HostNode(0, 16, 100, True, (10, 21)), HostNode(2, 8, 100, True, (21, 10))), 64,
)  # fmt: skip
GUEST = Topology(
    Shape(7, 2, 1, 1, 2, 2), tuple(range(8, 15)), nodes=(GuestNode(2, (0, 1, 2, 3), 1000), GuestNode(3, (4, 5, 6), 600)),
    distances=((10, 21), (21, 10)),
)  # fmt: skip
PLANNED = VmTopology(1, "kvm", "host", 0, PART, GUEST)
SHAPE = (((0, 1), (2, 3)), ((4, 5), (6,)))  # packages, each with cores


def mask(cpus: Sequence[int]) -> str:
    """Return a set of CPUs as hwloc writes it."""
    return f"0x{sum(1 << cpu for cpu in cpus):08x}"


def draw(packages: Sequence[Sequence[Sequence[int]]], memory: Sequence[int] = (900, 550), cache: str = "L3Cache") -> bytes:
    """Return the XML of a machine with a NUMA node and an L3 cache for each package; nodes of such MiB."""
    words = [HEAD, '<object type="Machine" os_index="0">']
    for number, cores in enumerate(packages):
        cpus = [cpu for core in cores for cpu in core]
        words += [
            f'<object type="Package" os_index="{number}" cpuset="{mask(cpus)}">',
            f'<object type="NUMANode" os_index="{number}" cpuset="{mask(cpus)}" local_memory="{memory[number] << 20}">'
            '<page_type size="4096" count="1"/></object>',
            f'<object type="{cache}" depth="3" cache_type="0">',
        ]
        for core in cores:
            words += ['<object type="Core">', *(f'<object type="PU" os_index="{cpu}"/>' for cpu in core), "</object>"]
        words += ["</object>", "</object>"]
    return "".join([*words, '<object type="Bridge"><object type="PCIDev"/></object>', "</object></topology>"]).encode()


def read(data: bytes) -> Drawn:
    """Return what is in a file."""
    return parse_lstopo(data, "guest.xml")


@pytest.mark.parametrize("cache", ["L3Cache", "Cache"])
def test_a_guest_as_planned_has_no_difference(cache: str) -> None:
    assert find_guest_differences(PLANNED, read(draw(SHAPE, cache=cache))) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (draw((((0, 1), (2,), (3,)), ((4, 5), (6,)))),
         ["CPUs of the guest by core are [0-1] [2] [3] [4-5] [6] by lstopo, where [0-1] [2-3] [4-5] [6] are planned"]),
        (draw((((0, 1), (2, 3)), ((4, 5),))), ["lstopo knows no CPUs 6 of the guest"]),
        (draw(SHAPE, (900, 300)), ["the guest's node 1 has 300 MiB by lstopo, where 600 are planned"]),
        (draw(SHAPE, (900, 700)), ["the guest's node 1 has 700 MiB by lstopo, where 600 are planned"]),
        (draw(SHAPE, cache="L2Cache"),
         ["CPUs of the guest by L3 cache are [0] [1] [2] [3] [4] [5] [6] by lstopo, where [0-3] [4-6] are planned"]),
    ],
)  # fmt: skip
def test_a_difference_is_a_sentence(data: bytes, said: list[str]) -> None:
    assert find_guest_differences(PLANNED, read(data)) == said


def test_levels_that_the_guest_does_not_have_are_not_asked_of_it() -> None:
    flat = replace(PLANNED, guest=Topology(Shape(7, cores=7)))
    one = draw((tuple((cpu,) for cpu in range(7)),), cache="L2Cache")
    assert find_guest_differences(flat, read(one)) == []


def test_the_host_is_what_the_plan_took_it_for() -> None:
    packages = (((8, 9), (10, 11)), ((12, 13), (14, 15)))
    assert find_host_differences(PLANNED, read(draw(packages))) == []
    other = (((8, 9), (10, 11), (12, 13), (14, 15)),)
    told = find_host_differences(PLANNED, read(draw(other)))
    assert [one.partition(" are ")[0] for one in told] == [
        "CPUs of the host by package", "CPUs of the host by L3 cache", "CPUs of the host by NUMA node",
    ]  # fmt: skip


def test_sets_of_cpus() -> None:
    assert parse_bitmap("0x0000000f") == (0, 1, 2, 3) and parse_bitmap("0x1,,0x80000000") == (31, 64) and parse_bitmap("") == ()


@pytest.mark.parametrize("data", [
    b"", b"<topology/>", b"<html><object type='PU' os_index='0'/></html>", draw(SHAPE)[:-9], draw(SHAPE).replace(b'"5"', b'"x"'),
    draw(SHAPE).replace(b'cpuset="0x', b'cpuset="zz'),
])  # fmt: skip
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError, match=r"^guest\.xml is not an XML file that lstopo has written: "):
        read(data)

"""What a process holds of its node, read from /sys and /proc; also where they are odd."""

import os
from pathlib import Path

import pytest

from pcocc_runtime.cpulist import parse_cpu_list, render_cpu_list
from pcocc_runtime.system.hardware import read_free_pages, read_own_cpus, read_part
from tests.machines import MACHINES, write_machine


@pytest.mark.parametrize(("text", "numbers"), [
    ("0-3,8", (0, 1, 2, 3, 8)), ("8,0-1", (0, 1, 8)), ("", ()), ("\n", ()), ("5", (5,)), ("0-x", ()),
    ("0-99999999", ()), ("-1", ()), ("3-1", ()),
])  # fmt: skip
def test_lists(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == numbers


def test_lists_are_written_as_they_are_read() -> None:
    assert render_cpu_list((9, 0, 1, 2, 4, 5)) == "0-2,4-5,9" and render_cpu_list(()) == ""


def test_a_cpu_is_in_its_groups(tmp_path: Path) -> None:
    part = read_part((130, 9), *write_machine(MACHINES["epyc-8-nodes"], tmp_path))
    assert part.cpus == ((9, 0, 0, 9, 9, 0, 9, 8, 16), (130, 0, 0, 2, 2, 0, 2, 0, 16))
    assert (part.online, part.topoext, len(part.nodes)) == (256, True, 8)
    assert part.nodes[5] == (5, 32, 65536, True, (32, 32, 32, 32, 12, 10, 12, 12))


def test_levels_that_firmware_tells_absurdly_are_none(tmp_path: Path) -> None:
    """The dies of a Kunpeng 920 are its CPUs, within clusters of four."""
    part = read_part((66, 67), *write_machine(MACHINES["kunpeng"], tmp_path))
    assert [(cpu.package, cpu.die, cpu.cluster, cpu.l3) for cpu in part.cpus] == [(64, 64, 64, 64)] * 2


def test_the_memory_of_a_cpuset(tmp_path: Path) -> None:
    part = read_part((0, 1), *write_machine(MACHINES["grace"], tmp_path, mems="0,2"))
    assert [(node.number, node.usable, node.cpus) for node in part.nodes] == [(0, True, 72), (1, False, 72), (2, True, 0)]


@pytest.mark.parametrize("broken", ["topology", "cache", "node", "everything"])
def test_what_sys_does_not_tell_is_left_out(tmp_path: Path, broken: str) -> None:
    system, proc = write_machine(MACHINES["small"], tmp_path)
    for path in sorted(Path(system).rglob("*")):
        if path.is_file() and (
            broken in path.parts or broken == "everything" or (broken == "node" and "node" in path.name)
        ):
            path.write_bytes(b"\xff nonsense")
    part = read_part(range(4), system, proc)
    assert [cpu.number for cpu in part.cpus] == [0, 1, 2, 3]
    if broken in ("topology", "everything"):
        assert [(cpu.package, cpu.core) for cpu in part.cpus] == [(cpu, cpu) for cpu in range(4)]
    if broken in ("cache", "everything"):
        assert {cpu.l3 for cpu in part.cpus} == {None}
    assert bool(part.nodes) == (broken not in ("node", "everything"))


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    part = read_part((0, 1), str(tmp_path), str(tmp_path))
    assert part.nodes == () and part.online == 2 and not part.topoext


def test_this_machine() -> None:
    part = read_part(read_own_cpus())
    assert {cpu.number for cpu in part.cpus} == os.sched_getaffinity(0) and part.online >= len(part.cpus)
    assert part.nodes and all(node.memory for node in part.nodes if node.cpus)
    assert any(node.usable for node in part.nodes)


def test_free_huge_pages(tmp_path: Path) -> None:
    for path, pages in (("devices/system/node/node1", 12), ("kernel/mm", 40)):
        (tmp_path / path / "hugepages/hugepages-2048kB").mkdir(parents=True)
        (tmp_path / path / "hugepages/hugepages-2048kB/free_hugepages").write_text(f"{pages}\n")
    found = [
        read_free_pages(node, size, str(tmp_path)) for node, size in ((1, 2048), (None, 2048), (0, 2048), (1, 1048576))
    ]
    assert found == [12, 40, 0, 0]

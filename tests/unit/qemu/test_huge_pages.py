"""Huge pages: used where they are free; else normal pages with a note, or a refusal with node, size and number."""

from pathlib import Path

import pytest

from pcocc_runtime.documents.hardware import Allocation, HostCpu, HostNode, Topology
from pcocc_runtime.errors import RequestError
from pcocc_runtime.qemu.huge_pages import Pages, ReadFree, plan_pages
from pcocc_runtime.qemu.topology import plan_flat, plan_topology
from pcocc_runtime.system.hardware import read_free_pages

PART = Allocation(
    tuple(HostCpu(cpu, cpu, cpu, cpu, cpu, cpu, cpu, cpu, 1) for cpu in (0, 1)),
    (HostNode(0, 1, 4096, True, (10, 20)), HostNode(1, 1, 4096, True, (20, 10))), 2,
)  # fmt: skip
NUMA, FLAT = plan_topology(PART, 2, 0, True, False), plan_flat(2, "tests")


def free(**pages: int) -> ReadFree:
    """Return what tells how many pages are free, by names such as n0_2M; on all nodes together `all`."""
    return lambda node, size: pages.get(f"{'all' if node is None else f'n{node}'}_{'1G' if size == 1048576 else '2M'}", 0)


def memory(found: Pages) -> list[int]:
    return [node.memory for node in found.topology.nodes]


@pytest.mark.parametrize(
    ("wish", "topology", "size", "there", "page", "shares"),
    [
        ("off", NUMA, 1001, free(n0_2M=999, n1_2M=999), 0, [500, 500]),
        ("2M", NUMA, 1001, free(n0_2M=250, n1_2M=250), 2048, [500, 500]),
        ("auto", NUMA, 1001, free(n0_2M=250, n1_2M=250, n0_1G=9, n1_1G=9), 2048, [500, 500]),
        ("auto", NUMA, 4096, free(n0_1G=2, n1_1G=2), 1048576, [2048, 2048]),
        ("auto", NUMA, 4096, free(n0_2M=1024, n1_2M=1024, n0_1G=2, n1_1G=1), 2048, [2048, 2048]),
        ("1G", NUMA, 5000, free(n0_1G=2, n1_1G=2), 1048576, [2048, 2048]),
        ("2M", FLAT, 1001, free(all_2M=500), 2048, []),
        ("off", FLAT, 1001, free(), 0, []),
    ],
)
def test_pages_that_are_free(
    wish: str, topology: Topology, size: int, there: ReadFree, page: int, shares: list[int]
) -> None:
    found = plan_pages(wish, PART, topology, size, there, "t")
    assert (found.size, memory(found), found.note) == (page, shares, "")
    assert found.memory == (sum(shares) or (1000 if page else 1001))


def test_auto_falls_back_with_a_line() -> None:
    found = plan_pages("auto", PART, NUMA, 1001, free(n0_2M=250, n1_2M=249), "t")
    assert (found.size, memory(found)) == (0, [500, 500])
    assert (
        found.note
        == "ordinary memory is used instead of huge pages: NUMA node 1 has 249 free pages of 2M, but the guest needs 250"
    )


@pytest.mark.parametrize(
    ("wish", "topology", "size", "said"),
    [
        ("2M", NUMA, 1000, "hugepages: 2M of template 't': NUMA node 0 has 0 free pages of 2M, but the guest needs 250"),
        ("2M", FLAT, 1000, "hugepages: 2M of template 't': this host has 7 free pages of 2M, but the guest needs 500"),
        ("1G", NUMA, 1000, "hugepages: 1G of template 't': the guest's memory is smaller than a page of 1G"),
    ],
)
def test_a_size_by_name_is_refused(wish: str, topology: Topology, size: int, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        plan_pages(wish, PART, topology, size, free(all_2M=7), "t")
    assert caught.value.message == said and "hugepages: auto" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("cgroup", "files", "left"),
    [
        ("0::/a/b\n", {}, 40),
        (
            "0::/a/b\n",
            {"a/hugetlb.2MB.max": "max", "a/b/hugetlb.2MB.max": str(30 << 21), "a/b/hugetlb.2MB.current": str(10 << 21)},
            20,
        ),
        ("0::/a/b\n", {"hugetlb.1GB.max": "0", "a/hugetlb.2MB.max": "0"}, 0),
        (
            "9:hugetlb:/a\n0::/x\n",
            {"hugetlb/a/hugetlb.2MB.limit_in_bytes": str(5 << 21), "hugetlb/a/hugetlb.2MB.usage_in_bytes": "0"},
            5,
        ),
        ("9:memory:/a\n0::/x\n", {"hugetlb/a/hugetlb.2MB.limit_in_bytes": "0"}, 40),
    ],
)
def test_what_cgroups_allow(tmp_path: Path, cgroup: str, files: dict[str, str], left: int) -> None:
    kernel = tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB"
    kernel.mkdir(parents=True)
    (kernel / "free_hugepages").write_text("40\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        (tmp_path / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / name).write_text(f"{text}\n")
    assert read_free_pages(None, 2048, f"{tmp_path}/sys", f"{tmp_path}/proc") == left

"""A VM is the piece of the node that its task was given: two sockets and two NUMA nodes of two CPUs each."""

import re
from collections.abc import Iterator

import pytest

from tests.node.node import Job, Node, submit_cluster
from tests.node.topology import MOUNT, check_guest, look
from tests.waiting import wait_for

PAGES = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/free_hugepages"
TEMPLATES = "/home/alice/.pcocc/templates.yaml"


@pytest.mark.parametrize(("count", "sockets", "nodes"), [(1, "0", ["0"]), (2, "00", ["0 1"]), (3, "001", ["0 1", "2"])])
def test_a_guest_is_its_part_of_the_node(
    node: Node, unshared: None, count: int, sockets: str, nodes: list[str]
) -> None:
    """Its memory is shared with virtiofsd, and nevertheless bound to NUMA nodes."""
    job = submit_cluster(node, "tiny:1", f"-c{count}", MOUNT)
    check_guest(job, sockets, nodes)
    job.end()


@pytest.fixture
def huge(node: Node) -> Iterator[None]:
    """A template of alice's whose guests are made of huge pages."""
    node.out("mkdir -p ~/.pcocc", "alice")
    node.write(TEMPLATES, "huge:\n  inherits: tiny\n  hugepages: 2M\n", "alice")
    yield
    node.out(f"rm {TEMPLATES}", "alice")


def test_a_guest_of_huge_pages_on_both_nodes_takes_them_and_gives_them_back(node: Node, unshared: None, huge: None) -> None:
    free = [node.read(PAGES.format(number)) for number in (0, 1)]
    job = submit_cluster(node, "huge:1", "-c4", "--mem=360M", MOUNT)
    told = check_guest(job, "0011", ["0 1", "2 3"])
    taken = [one["memory"] // 2 for one in told["nodes"]]
    assert [one["host"] for one in told["nodes"]] == [0, 1] and all(taken)
    assert [int(node.read(PAGES.format(number))) for number in (0, 1)] == [
        int(before) - pages for before, pages in zip(free, taken, strict=True)
    ]
    bound = {(one["policy"], one["page"]) for one in told["memory"] if "bind" in one["policy"]}
    assert bound == {("bind:0", 2048), ("bind:1", 2048)}
    job.end()
    wait_for(lambda: [node.read(PAGES.format(number)) for number in (0, 1)] == free, "the pages that were taken", 60, 1)


def test_more_huge_pages_than_there_are_is_refused_by_node_size_and_number(node: Node, unshared: None, huge: None) -> None:
    done = node.run(["srun", "-n1", "-c2", "--mem=512M", "--pcocc-template=huge:1", "true"], "alice")
    said = r"hugepages: 2M of template 'huge': NUMA node 0 has 64 free pages of 2M, but the guest needs \d+"
    assert done.returncode and re.search(said, done.stderr), done.stderr


def test_the_kernel_carries_packets_where_it_has_vhost(node: Node, cluster: Job) -> None:
    """Root opens /dev/vhost-net, which loads the module; vhost's thread is beside QEMU's own."""
    told = look(cluster)
    pid = node.qemus(cluster.number)["vm0"]
    opened = node.out(f"readlink /proc/{pid}/fd/*").split()
    assert opened.count("/dev/vhost-net") == 1 and "eth0: 1 queues, the kernel (vhost)" in told["devices"], told["devices"]
    assert "vhost_net" in node.out("lsmod").split()

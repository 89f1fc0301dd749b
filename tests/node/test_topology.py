"""A VM is the piece of the node that its task was given: two sockets and two NUMA nodes of two CPUs each."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.node.node import Job, Node, submit_cluster
from tests.waiting import wait_for

PAGES = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/free_hugepages"
TEMPLATES = "/home/alice/.pcocc/templates.yaml"
# the node's own programs in a guest that has none
FOREIGN = "/mnt/root/usr/lib64/ld-linux-x86-64.so.2 --library-path /mnt/root/usr/lib/x86_64-linux-gnu /mnt/root/usr/bin/"
PACKAGES = "cat /sys/devices/system/cpu/cpu*/topology/physical_package_id"


def look(job: Job) -> Any:
    """Return what @topology says of a VM that must run as planned."""
    done = job.srun("--pcocc-vm=vm0", "@topology", "--check", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def read_threads(node: Node, pid: int) -> dict[str, str]:
    """Return the CPUs that QEMU's threads may run on, by their names, as the kernel has it."""
    lines = node.out(f"cd /proc/{pid}/task; for one in *; do echo $(taskset -cp $one | sed 's/.*: //') $(cat $one/comm); done")
    return {name: cpus for cpus, name in (line.split(" ", 1) for line in lines.splitlines())}


def read_bound(node: Node, pid: int) -> dict[str, set[str]]:
    """Return the nodes that memory lies on, by the policy of its mapping (numa_maps)."""
    found: dict[str, set[str]] = {}
    for line in node.read(f"/proc/{pid}/numa_maps").splitlines():
        if " bind:" in line:
            found.setdefault(line.split()[1], set()).update(re.findall(r" N(\d)=", line))
    return found


@pytest.mark.parametrize(
    ("count", "sockets", "nodes"), [(1, "0", ["0"]), (2, "00", ["0 1"]), (3, "001", ["0 1", "2"])]
)  # fmt: skip
def test_a_guest_is_its_part_of_the_node(
    node: Node, unshared: None, count: int, sockets: str, nodes: list[str]
) -> None:
    """lscpu(1) and numactl(8) of the node, which the guest finds on a mount, see in the guest what was planned."""
    job = submit_cluster(node, "tiny:1", f"-c{count}", "--pcocc-mount=root=/,readonly")
    told, [pid] = look(job), node.qemus(job.number).values()
    assert told["accel"] == "kvm" and len(told["vcpus"]) == count
    threads = read_threads(node, pid)
    for place, one in enumerate(told["vcpus"]):
        assert threads[f"CPU {place}/KVM"] == str(one["host"]["number"]), threads
    assert read_bound(node, pid) == {f"bind:{one['host']}": {str(one["host"])} for one in told["nodes"]}
    assert job.vm(PACKAGES).split() == [*sockets]
    seen = json.loads(job.vm(f"{FOREIGN}lscpu --json"))["lscpu"]
    fields = {one["field"].rstrip(":"): one["data"] for one in flatten(seen)}
    assert (fields["CPU(s)"], fields["Socket(s)"], fields["Thread(s) per core"]) == (str(count), str(len({*sockets})), "1")
    shown = job.vm(f"{FOREIGN}numactl --hardware")
    assert re.findall(r"node \d cpus: (.*)", shown) == nodes
    if len(nodes) > 1:
        assert [row.split() for row in re.findall(r"(?m)^ +\d: (.*)$", shown)] == [["10", "21"], ["21", "10"]]
    job.end()


def flatten(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return lscpu's fields, which it nests from util-linux 2.38 on."""
    return [one for field in fields for one in (field, *flatten(field.get("children", [])))]


@pytest.fixture
def huge(node: Node) -> Iterator[None]:
    """A template of alice's whose guests are made of huge pages."""
    node.out("mkdir -p ~/.pcocc", "alice")
    node.write(TEMPLATES, "huge:\n  inherits: tiny\n  hugepages: 2M\n", "alice")
    yield
    node.out(f"rm {TEMPLATES}", "alice")


def test_a_guest_of_huge_pages_on_both_nodes_takes_them_and_gives_them_back(node: Node, unshared: None, huge: None) -> None:
    free = [node.read(PAGES.format(number)) for number in (0, 1)]
    job = submit_cluster(node, "huge:1", "-c4", "--mem=360M")
    told, [pid] = look(job), node.qemus(job.number).values()
    taken = [one["memory"] // 2 for one in told["nodes"]]
    assert [one["host"] for one in told["nodes"]] == [0, 1] and all(taken)
    assert [int(node.read(PAGES.format(number))) for number in (0, 1)] == [
        int(before) - pages for before, pages in zip(free, taken, strict=True)
    ]
    bound = {(one["policy"], one["page"]) for one in told["memory"] if "bind" in one["policy"]}
    assert bound == {("bind:0", 2048), ("bind:1", 2048)}
    assert sorted(read_bound(node, pid)) == ["bind:0", "bind:1"]
    assert job.vm(PACKAGES).split() == ["0", "0", "1", "1"]
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

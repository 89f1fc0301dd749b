"""Several networks in one cluster: each VM has those of its resource set, in order, and shares each with the other VMs
that have it.
"""

import subprocess
from collections.abc import Iterator

import pytest

from pcocc_runtime.documents.reach import address_of
from tests.netns.fabric import Guest, Node, request

Pair = tuple[Node, Node]
NETWORKS = {
    "front": "{network-layer: L3, int-network: 10.200.0.0/16}",
    "back": "{network-layer: L3, int-network: 10.201.0.0/24, domain-name: back.example}",
    "wire": "{network-layer: L2}",
}


@pytest.fixture
def cluster(nodes: Pair) -> Iterator[Pair]:
    """vm0 has `front`, vm1 and vm2 have `front`, `back` and `wire`, vm3 has `back`; two VMs on each node."""
    stepd = subprocess.Popen(["sleep", "600"])
    try:
        for index, node in enumerate(nodes):
            node.configure(NETWORKS, {"default": ["front"], "all": ["front", "back", "wire"], "other": ["back"]})
            done = node.helper("setup", request(12, index, stepd.pid, sets="default:1,all:2,other:1"))
            taps = [["tap 0 tap0n0", "tap 1 tap1n0,tap1n1,tap1n2"], ["tap 2 tap2n0,tap2n1,tap2n2", "tap 3 tap3n1"]]
            assert done.stdout.splitlines() == [*taps[index], "queues 8"]
        yield nodes
    finally:
        stepd.kill()
        stepd.wait()


def test_networks_are_shared_by_who_names_them(cluster: Pair) -> None:
    front = Guest(cluster[0], 12, 1, network=0), Guest(cluster[1], 12, 2, network=0)
    assert "ip=10.200.0.2" in front[0].dhcp() and "ip=10.200.0.3" in front[1].dhcp()
    back = Guest(cluster[0], 12, 1, network=1), Guest(cluster[1], 12, 3, network=1)
    said = back[0].dhcp()
    assert "ip=10.201.0.2" in said
    assert "ip=10.201.0.4" in back[1].dhcp()
    front[0].run("ping", "-c1", "-W5", "10.200.0.3")
    back[0].run("ping", "-c1", "-W5", "10.201.0.4")
    assert "vm3.back.example" in back[0].run("busybox", "nslookup", "10.201.0.4", "10.201.0.254").stdout
    assert front[0].run("ping", "-c1", "-W1", "10.201.0.4", check=False).returncode != 0, "one network does not lead to another"


def test_what_is_told_to_launchers_names_networks_and_members(cluster: Pair) -> None:
    facts = cluster[1].facts(12)
    told = [(one.name, one.kind, one.members, facts.ranks_on(one)) for one in facts.networks]
    assert told == [
        ("front", "L3", ((0, 2),), (2,)),
        ("back", "L3", ((1, 3),), (2, 3)),
        ("wire", "L2", ((1, 2),), (2,)),
    ]
    assert facts.reach == (("10.200.0.0/16", ((0, 2),)), ("10.201.0.0/24", ((3, 3),)))


def test_a_vm_is_reached_from_every_node_at_the_first_l3_network_of_its_set(nodes: Pair) -> None:
    """Its first interface has its default route, and may be the only one its guest has configured."""
    with subprocess.Popen(["sleep", "600"]) as stepd:
        for index, node in enumerate(nodes):
            node.configure(NETWORKS, {"default": ["front", "back"], "other": ["wire", "back", "front"]})
            node.helper("setup", request(12, index, stepd.pid, sets="default:3,other:1"))
        Guest(nodes[0], 12, 0, network=0).dhcp()
        Guest(nodes[1], 12, 3, network=1).dhcp()
        for node in nodes:
            told = node.facts(12).reach
            for rank, address in ((0, "10.200.0.1"), (3, "10.201.0.4")):
                assert address_of(told, rank) == address
                node.in_job(12, "ping", "-c1", "-W5", address)
        stepd.kill()

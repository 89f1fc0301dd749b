"""L2 networks on two nodes: a wire of the VMs' own, with nothing of ours on it."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.netns.fabric import Guest, Node, request
from tests.netns.lan import forge, listening

Pair = tuple[Node, Node]


@pytest.fixture
def wire(nodes: Pair) -> Iterator[tuple[Guest, Guest]]:
    """Two VMs on two nodes whose only network is an L2 one."""
    stepd = subprocess.Popen(["sleep", "600"])
    try:
        for index, node in enumerate(nodes):
            node.configure({"wire": "{network-layer: L2}"}, {"default": ["wire"]})
            node.helper("setup", request(12, index, stepd.pid))
        yield Guest(nodes[0], 12, 0), Guest(nodes[1], 12, 3)
    finally:
        stepd.kill()
        stepd.wait()


def test_vms_of_two_nodes_take_what_addresses_they_like(wire: tuple[Guest, Guest]) -> None:
    for guest, address in zip(wire, ("172.30.0.1/24", "172.30.0.2/24"), strict=True):
        guest.run("ip", "addr", "add", address, "dev", "eth0")
    wire[0].run("ping", "-c1", "-W5", "172.30.0.2")
    wire[1].run("ip", "link", "set", "eth0", "address", "52:54:00:aa:bb:cc")
    wire[0].run("ip", "neigh", "flush", "all")
    wire[0].run("ping", "-c1", "-W5", "172.30.0.2")


def test_a_vm_serves_dhcp_to_the_others(wire: tuple[Guest, Guest]) -> None:
    server, client = wire
    server.run("ip", "addr", "add", "172.31.0.1/24", "dev", "eth0")
    words = ["nsenter", f"--target={server.node.holder.pid}", "--net", "--mount", "ip", "netns", "exec", server.name, "dnsmasq"]
    options = [
        "-k", "--port=0", "--dhcp-range=172.31.0.50,172.31.0.60", "--leasefile-ro", "--user=root", "--pid-file=",
        "-C/dev/null",
    ]
    with subprocess.Popen([*words, *options], stderr=subprocess.DEVNULL) as dnsmasq:
        try:
            assert "ip=172.31.0.5" in client.dhcp() or "ip=172.31.0.60" in client.dhcp()
        finally:
            dnsmasq.kill()


def test_frames_of_any_type_pass(wire: tuple[Guest, Guest]) -> None:
    with listening(wire[1]) as heard:
        forge(wire[0], "other-ethertype", "neighbour-of-wire")
    assert any("88b5" in frame for frame in heard), "an EtherType for experiments (IEEE 802)"
    assert any(frame.startswith("0180c200000e") for frame in heard), "LLDP's group address"


def test_the_node_is_not_on_the_wire(nodes: Pair, wire: tuple[Guest, Guest]) -> None:
    assert nodes[0].in_job(12, "ip", "-br", "-4", "addr", "show", "br0").stdout.split()[2:] == []
    assert not nodes[0].servers()
    assert "dst 192.0.2.2" in nodes[0].in_job(12, "bridge", "fdb", "show", "dev", "vx0").stdout

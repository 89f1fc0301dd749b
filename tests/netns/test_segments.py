"""Networks that pass frames on: private L2 ones between nodes, and bridges of the site. The node serves nothing on them."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime import addressing
from tests.netns.fabric import Guest, Node, connect, release, request
from tests.netns.lan import heard_in, listening, say

JOB = 12
NETWORKS = {"flat": "{network-layer: L2, mtu: 1500}"}
SITE = """
site: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: site}}
big: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: big, mtu: 9000}}
none: {type: bridged-ethernet, settings: {host-bridge: lan1, tap-prefix: none}}
cut: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: cut, vlans: [{vid: 100, type: native}]}}
"""
SETS = {name: [name] for name in ("flat", "site", "big", "none", "cut")}
SITES_MAC = "02:00:00:00:00:07"


@pytest.fixture(scope="module")
def all_nodes() -> Iterator[tuple[Node, Node]]:
    """Two nodes, each with a bridge of the site, lan0, and on the first one's a machine of the site in a namespace."""
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        pair = Node(Path(directory), "one"), Node(Path(directory), "two")
        try:
            connect(*pair)
            for node in pair:
                node.configure(NETWORKS, SETS)
                with (node.confdir / "networks.yaml").open("a") as file:
                    file.write(SITE)
                node.run("sh", "-c", "ip link add lan0 type bridge; ip link set lan0 up; ip netns add site")
            machine = (
                f"ip link add site0 type veth peer name eth0 address {SITES_MAC} netns site; ip link set site0 master"
                " lan0 up"
            )
            pair[0].run("sh", "-c", f"{machine}; ip -n site link set eth0 up; ip -n site addr add 198.51.100.1/24 dev eth0")
            yield pair
        finally:
            for node in pair:
                node.close()


def ports_and_files(node: Node) -> list[str]:
    return [line.split()[0] for line in node.leftovers().splitlines()]


@pytest.fixture
def nodes(all_nodes: tuple[Node, Node]) -> Iterator[tuple[Node, Node]]:
    """The nodes; when the test is over, they must be as they were before."""
    before = [ports_and_files(node) for node in all_nodes]
    yield all_nodes
    for node in all_nodes:
        node.helper("release", release(JOB))
        node.helper("release", release(JOB + 1))
        node.run("sh", "-c", "for n in /run/netns/guest*; do [ ! -e $n ] || ip netns del ${n##*/}; done")
    assert [ports_and_files(node) for node in all_nodes] == before


@pytest.fixture
def stepd() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


def set_up(nodes: tuple[Node, Node], stepd: int, name: str, job: int = JOB) -> None:
    for index, node in enumerate(nodes):
        node.helper("setup", request(job, index, stepd, sets=f"{name}:4"))


FRAMES = {
    "an unknown EtherType": ("ff:ff:ff:ff:ff:ff", "88b5"),
    "an unknown EtherType to one VM": ("52:54:00:00:00:03", "88b5"),
    "a VLAN tag": ("ff:ff:ff:ff:ff:ff", "81000064" + "88b5"),
    "any group address": ("01:00:5e:01:02:03", "88b5"),
    "LLDP": ("01:80:c2:00:00:0e", "88cc"),
    "STP": ("01:80:c2:00:00:00", "0026"),
    "LACP": ("01:80:c2:00:00:02", "8809"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_reaches_vms_on_other_nodes_of_an_l2_network(nodes: tuple[Node, Node], stepd: int, kind: str) -> None:
    set_up(nodes, stepd, "flat")
    here, there = Guest(nodes[0], JOB, 0), Guest(nodes[1], JOB, 3)
    group, rest = FRAMES[kind]
    with listening(there) as frames:
        say(here, group, rest, "a frame")
        say(here, "ff:ff:ff:ff:ff:ff", "88b5", "END")
    assert any(b"a frame".hex() in frame for frame in frames)


def test_a_full_frame_crosses_an_l2_network(nodes: tuple[Node, Node], stepd: int) -> None:
    set_up(nodes, stepd, "flat")
    here, there = Guest(nodes[0], JOB, 0), Guest(nodes[1], JOB, 3)
    for guest, address in ((here, "10.0.0.1"), (there, "10.0.0.2")):
        guest.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
    here.run("ping", "-c1", "-W5", "-M", "do", "-s", "1422", "10.0.0.2")


def test_the_users_own_dhcp_server_is_the_only_one_on_an_l2_network(nodes: tuple[Node, Node], stepd: int) -> None:
    set_up(nodes, stepd, "flat")
    server, client = Guest(nodes[0], JOB, 0), Guest(nodes[1], JOB, 3)
    server.run("ip", "addr", "add", "192.168.7.1/24", "dev", "eth0")
    words = "--port=0 --bind-interfaces --interface=eth0 --dhcp-range=192.168.7.10,192.168.7.20 --leasefile-ro --no-ping"
    server.run("dnsmasq", *words.split(), "--pid-file=/run/user-dnsmasq.pid")
    try:
        assert "siaddr=192.168.7.1" in client.dhcp()
        client.run("ping", "-c1", "-W5", "192.168.7.1")
    finally:
        server.node.run("sh", "-c", "kill $(cat /run/user-dnsmasq.pid)")


def test_the_node_has_no_address_and_no_service_on_an_l2_network(nodes: tuple[Node, Node], stepd: int) -> None:
    set_up(nodes, stepd, "flat")
    Guest(nodes[0], JOB, 0)
    assert [line.split()[0] for line in nodes[0].in_job(JOB, "ip", "-o", "addr").stdout.splitlines() if " lo " not in line] == []
    assert nodes[0].servers() == []


def test_l2_networks_of_two_jobs_never_meet(nodes: tuple[Node, Node], stepd: int) -> None:
    for job in (JOB, JOB + 1):
        set_up(nodes, stepd, "flat", job)
    mine, other, there = Guest(nodes[0], JOB, 0), Guest(nodes[0], JOB + 1, 0), Guest(nodes[1], JOB, 3)
    with listening(there) as frames:
        say(other, "ff:ff:ff:ff:ff:ff", "88b5", "of the other job")
        say(mine, "ff:ff:ff:ff:ff:ff", "88b5", "END")
    assert not [frame for frame in frames if b"of the other job".hex() in frame]


def site_machine(node: Node, *argv: str) -> str:
    return node.run("ip", "netns", "exec", "site", *argv).stdout


def test_vms_are_on_the_sites_bridge_with_macs_of_their_job(nodes: tuple[Node, Node], stepd: int) -> None:
    for job in (JOB, JOB + 1):
        set_up((nodes[0],), stepd, "site", job)
    ports = nodes[0].run("ip", "-br", "link", "show", "master", "lan0").stdout
    assert [line.split("@")[0].split()[0] for line in ports.splitlines()] == ["site0", "site00000c00", "site00000d00"]
    guests = [Guest(nodes[0], job, rank, mac=addressing.bridged_mac(job, rank, 0)) for job in (JOB, JOB + 1) for rank in (0, 1)]
    for number, guest in enumerate(guests, 2):
        guest.run("ip", "addr", "add", f"198.51.100.{number}/24", "dev", "eth0")
    for number, guest in enumerate(guests, 2):
        site_machine(nodes[0], "ping", "-c1", "-W5", f"198.51.100.{number}")
        guest.run("ping", "-c1", "-W5", "198.51.100.1")
    known = site_machine(nodes[0], "ip", "neigh", "show", "dev", "eth0")
    assert [guest.mac for guest in guests if guest.mac not in known] == []
    assert len({guest.mac for guest in guests}) == 4


def test_the_sites_own_dhcp_server_serves_vms(nodes: tuple[Node, Node], stepd: int) -> None:
    set_up((nodes[0],), stepd, "site")
    words = "--port=0 --bind-interfaces --interface=eth0 --dhcp-range=198.51.100.10,198.51.100.20 --leasefile-ro --no-ping"
    site_machine(nodes[0], "dnsmasq", *words.split(), "--pid-file=/run/site-dnsmasq.pid")
    try:
        assert "siaddr=198.51.100.1" in Guest(nodes[0], JOB, 0, mac=addressing.bridged_mac(JOB, 0, 0)).dhcp()
    finally:
        nodes[0].run("sh", "-c", "kill $(cat /run/site-dnsmasq.pid)")


@pytest.mark.parametrize(("kind", "passes"), [("an unknown EtherType", True), ("LLDP", False), ("STP", False)])
def test_frames_that_concern_the_sites_switches_do_not_leave_a_vm(
    nodes: tuple[Node, Node], stepd: int, kind: str, passes: bool
) -> None:
    set_up((nodes[0],), stepd, "site")
    guest = Guest(nodes[0], JOB, 0, mac=addressing.bridged_mac(JOB, 0, 0))
    group, rest = FRAMES[kind]
    with heard_in(nodes[0], "site") as frames:
        say(guest, group, rest, "a frame")
        say(guest, "ff:ff:ff:ff:ff:ff", "88b5", "END")
    assert any(b"a frame".hex() in frame for frame in frames) is passes


def test_the_sites_bridge_keeps_its_mtu_and_has_no_trace_of_a_job_after_it(nodes: tuple[Node, Node], stepd: int) -> None:
    before = nodes[0].run("ip", "-o", "link", "show", "lan0").stdout.split(" state ")
    set_up((nodes[0],), stepd, "site")
    assert nodes[0].run("ip", "-o", "link", "show", "lan0").stdout.split(" state ")[0] == before[0]
    set_up((nodes[0],), stepd, "site")
    nodes[0].helper("release", release(JOB))
    assert "site00000c00" not in nodes[0].run("ip", "-br", "link").stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "has no bridge 'lan1', which network 'none' is on"),
        ("cut", "bridge 'lan0' of 192.0.2.1 does not filter VLANs, and network 'cut' has vlans"),
        ("big", "network 'big' has MTU 9000, but bridge 'lan0' of 192.0.2.1 only 1500"),
    ],
)
def test_a_bridge_that_does_not_serve_is_told_in_a_sentence(nodes: tuple[Node, Node], stepd: int, name: str, words: str) -> None:
    done = nodes[0].helper("setup", request(JOB, 0, stepd, sets=f"{name}:4"), check=False)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first.startswith("pcocc: error:") and words in first and second.startswith("hint: ")

"""What an L3 network offers its VMs: addresses and names of both families, and the site's options, the same on every node."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.fabric import Guest, Node, release, request
from tests.netns.lan import join

JOB = 12
SITE_DNS = "192.0.2.9"
NETWORKS = {
    "lan": (
        f"{{dns-server: {SITE_DNS}, domain-name: cluster.example, dns-search: [a.example, b.example], ntp-server:"
        " 192.0.2.123, mtu: 1400}"
    ),
    "second": "{int-network: 10.201.0.0/16, domain-name: second.example, mac-prefix: '52:54:01'}",
    "shut": f"{{int-network: 10.202.0.0/16, dns-server: {SITE_DNS}, allow-outbound: none}}",
}
SETS = {"plain": ["lan"], "both": ["second", "lan"], "shut": ["shut"]}
GATEWAY, GATEWAY6 = "10.200.255.254", "fd70:636f:0:300::1"
VM6 = [f"fd70:636f:0:300::4:{rank:x}" for rank in range(4)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    """Two nodes with a job of four VMs, the last of which is on two networks, and a DNS server of the site."""
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        stepd = subprocess.Popen(["sleep", "900"])
        every = [Node(Path(directory), name) for name in ("switch", "one", "two", "dns")]
        switch, one, two, dns = every
        try:
            join(switch, {"192.0.2.1": one, "192.0.2.2": two, SITE_DNS: dns})
            dns.run("dnsmasq", "--no-resolv", "--no-hosts", "--address=/outside.example/198.51.100.9", "--pid-file=/run/pid")
            for index, node in enumerate((one, two)):
                node.configure(NETWORKS, SETS)
                node.helper("setup", request(JOB, index, stepd.pid, sets="plain:3,both:1"))
            yield one, two
        finally:
            stepd.kill()
            stepd.wait()
            dns.run("sh", "-c", "kill $(cat /run/pid)", check=False)
            for node in every:
                node.close()


@pytest.fixture(scope="module")
def vm0(nodes: tuple[Node, Node]) -> Guest:
    return Guest(nodes[0], JOB, 0)


@pytest.fixture(scope="module")
def vm3(nodes: tuple[Node, Node]) -> Guest:
    return Guest(nodes[1], JOB, 3)


@pytest.fixture(scope="module")
def said(vm0: Guest, vm3: Guest) -> str:
    """What DHCP said to vm0; both guests have their IPv4 and IPv6 addresses then."""
    answers = [guest.dhcp() for guest in (vm0, vm3)]
    for guest in (vm0, vm3):
        guest.dhcp6()
    return answers[0]


@pytest.fixture(scope="module")
def second(nodes: tuple[Node, Node]) -> Guest:
    """The first interface of vm3, that of the network its resource set names first."""
    return Guest(nodes[1], JOB, 3, 1, mac="52:54:01:04:00:03")


def look_up(guest: Guest, kind: str, name: str, server: str = GATEWAY) -> list[str]:
    """Return the answers to a question of a DNS type, as busybox's nslookup tells them."""
    asked = [] if kind == "PTR" else [f"-type={kind}"]
    text = guest.run("busybox", "nslookup", *asked, name, server, check=False).stdout
    answers = text.partition("\n\n")[2]
    return [line.rpartition(" ")[2] for line in answers.splitlines() if line.startswith(("Address:", "Name")) or "name =" in line]


def test_dhcp_tells_the_sites_settings(said: str) -> None:
    for words in (
        "ip=10.200.0.1", "mask=16", f"router={GATEWAY}", f"dns={GATEWAY}", "domain=cluster.example", "hostname=vm0", "mtu=1350",
        "ntpsrv=192.0.2.123", "search=cluster.example a.example b.example",
    ):  # fmt: skip
        assert words in said.splitlines(), said


def test_a_vm_has_its_ipv6_address_and_a_router_but_no_neighbours(said: str, vm0: Guest) -> None:
    addresses = vm0.run("ip", "-6", "-br", "addr", "show", "dev", "eth0", "scope", "global").stdout
    assert addresses.split()[2:] == [f"{VM6[0]}/128"]
    routes = vm0.run("ip", "-6", "route", "show", "dev", "eth0").stdout
    assert "default via fe80::70:67ff:fe00:0" in routes
    assert "fd70:636f:0:300::/64" not in routes


@pytest.mark.parametrize("target", [VM6[3], GATEWAY6, "10.200.0.4", GATEWAY])
def test_vms_reach_each_other_over_both_families(said: str, vm0: Guest, target: str) -> None:
    vm0.run("ping", "-c1", "-W5", target)


def test_vms_of_one_node_reach_each_other_over_ipv6(said: str, vm0: Guest) -> None:
    beside = Guest(vm0.node, JOB, 1)
    beside.dhcp6()
    vm0.run("ping", "-c1", "-W5", VM6[1])
    beside.run("ping", "-c1", "-W5", VM6[3])


@pytest.mark.parametrize("server", [GATEWAY, GATEWAY6])
@pytest.mark.parametrize("name", ["vm3.cluster.example", "vm3"])
def test_names_lead_to_both_addresses(said: str, vm0: Guest, name: str, server: str) -> None:
    assert "10.200.0.4" in look_up(vm0, "A", name, server)
    assert VM6[3] in look_up(vm0, "AAAA", name, server)


@pytest.mark.parametrize("address", ["10.200.0.4", VM6[3]])
def test_addresses_lead_to_names(said: str, vm0: Guest, address: str) -> None:
    assert look_up(vm0, "PTR", address) == ["vm3.cluster.example"]


def test_what_nobody_is_called_is_no_name(said: str, vm0: Guest) -> None:
    assert look_up(vm0, "A", "vm4.cluster.example") == look_up(vm0, "AAAA", "vm4.cluster.example") == []


def test_other_names_are_asked_of_the_sites_server(said: str, vm0: Guest) -> None:
    assert "198.51.100.9" in look_up(vm0, "A", "outside.example")


def test_a_network_without_a_way_out_does_not_ask_outside(nodes: tuple[Node, Node]) -> None:
    stepd = subprocess.Popen(["sleep", "600"])
    try:
        nodes[0].helper("setup", request(13, 0, stepd.pid, sets="shut:4"))
        guest = Guest(nodes[0], 13, 0)
        guest.dhcp()
        assert look_up(guest, "A", "outside.example", "10.202.255.254") == []
        assert "10.202.0.4" in look_up(guest, "A", "vm3.vcluster", "10.202.255.254")
    finally:
        stepd.kill()
        stepd.wait()
        nodes[0].helper("start", "")


def test_the_services_are_the_same_on_the_other_node(said: str, vm3: Guest) -> None:
    assert "10.200.0.1" in look_up(vm3, "A", "vm0.cluster.example")
    assert look_up(vm3, "PTR", VM6[0]) == ["vm0.cluster.example"]


def test_interfaces_are_in_the_order_of_the_resource_set(nodes: tuple[Node, Node]) -> None:
    done = nodes[1].helper("setup", request(14, 1, nodes[1].stepd(JOB), sets="plain:3,both:1"))
    nodes[1].helper("release", release(14))
    assert done.stdout.splitlines() == ["tap 2 tap2n0", "tap 3 tap3n1,tap3n0", "queues 8"]


def test_the_second_network_is_whole_and_knows_the_firsts_names(said: str, second: Guest) -> None:
    assert "ip=10.201.0.4" in second.dhcp()
    gateway = "10.201.255.254"
    assert "10.201.0.4" in look_up(second, "A", "vm3.second.example", gateway)
    assert look_up(second, "A", "vm0.second.example", gateway) == []
    assert "10.200.0.1" in look_up(second, "A", "vm0.cluster.example", gateway)


def test_every_node_reaches_a_vm_on_each_of_its_networks(said: str, nodes: tuple[Node, Node], second: Guest) -> None:
    second.dhcp()
    for node in nodes:
        for address in ("10.200.0.4", "10.201.0.4"):
            node.in_job(JOB, "ping", "-c1", "-W5", address)


@pytest.mark.parametrize("address", ["10.200.0.4", VM6[3]])
def test_packets_between_vms_of_two_nodes_are_not_tracked(nodes: tuple[Node, Node], vm0: Guest, said: str, address: str) -> None:
    """In both directions and on both nodes: a table of the test counts the packets that connection tracking knows."""
    counting = (
        "add table inet seen; delete table inet seen; table inet seen { chain forward { type filter hook forward"
        " priority 0; "
    )
    counting += "ct state untracked counter; ct state != untracked counter; }; }"
    for node in nodes:
        node.in_job(JOB, "nft", counting)
    vm0.run("ping", "-c2", "-i0.1", "-W5", address)
    for node in nodes:
        text = node.in_job(JOB, "nft", "list", "table", "inet", "seen").stdout
        node.in_job(JOB, "nft", "delete", "table", "inet", "seen")
        untracked, tracked = (int(count) for count in re.findall(r"packets (\d+)", text))
        assert untracked >= 4 and tracked == 0

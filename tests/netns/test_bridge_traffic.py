"""The site's own traffic over a bridge of a node: nothing of ours drops it, whether or not br_netfilter passes it through nft."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.fabric import Node, release, request
from tests.netns.lan import answering, ask

ONE, A, B = "192.0.2.1", "198.51.100.2", "198.51.100.3"
PORTS = (80, 24832, 25087)  # the last two are tunnels' between nodes
ALL = [f"{kind},{B},{port}" for kind in ("tcp", "udp") for port in PORTS]
AS_IT_WAS = """table inet before {
 set narrow {
  type ifname
  elements = { "br0" }
 }
 chain forwarded {
  type filter hook forward priority filter - 5; policy accept;
  udp dport 24832-25087 drop
  iifname @narrow oifname != "pcn*" drop
 }
}"""


@pytest.fixture(params=["0", "1"], ids=["bridge alone", "br_netfilter"])
def site(request: pytest.FixtureRequest) -> Iterator[tuple[Node, bool]]:
    """A node that is not a router, with two machines of the site's on one of its bridges, over which it has a route; and
    whether nft sees their traffic.
    """
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        node = Node(Path(directory), "one")
        try:
            node.configure({"open": "{int-network: 10.200.0.0/16}"}, {"open": ["open"]})
            node.run("sh", "-ec", f"""
                ip link add eth0 type veth peer name eth1; ip addr add {ONE}/24 dev eth0; ip link set eth0 up; ip link set eth1 up
                ip link add br0 type bridge; ip addr add 198.51.100.1/24 dev br0; ip link set br0 up
                for one in 2 3; do
                  ip netns add m$one; ip link add m$one type veth peer name eth0 netns m$one; ip link set m$one master br0 up
                  ip -n m$one addr add 198.51.100.$one/24 dev eth0; ip -n m$one link set eth0 up
                done
                echo {request.param} >/proc/sys/net/bridge/bridge-nf-call-iptables
                """)  # fmt: skip
            yield node, request.param == "1"
        finally:
            node.close()


def passes(node: Node) -> list[str]:
    """Return which of ALL pass from one machine to the other."""
    inside = ("ip", "netns", "exec", "m2")
    with answering(node, *PORTS, netns="m3"):
        answers = ask(node, *ALL, prefix=inside)
    return [one for one in ALL if one in answers and answers[one].split()[0] == A]


def test_what_enters_and_leaves_by_the_same_bridge_is_the_sites(site: tuple[Node, bool]) -> None:
    node, seen = site
    with subprocess.Popen(["sleep", "600"]) as stepd:
        node.helper("start", "")
        assert passes(node) == ALL
        node.helper("setup", request(21, 0, stepd.pid, sets="open:2", nodes=(ONE,)))
        assert node.run("cat", "/proc/sys/net/ipv4/conf/br0/forwarding").stdout == "1\n"
        assert passes(node) == ALL
        stepd.kill()
    node.helper("release", release(21))
    assert passes(node) == ALL
    node.run("nft", AS_IT_WAS)
    assert passes(node) == ([] if seen else ALL)


def test_what_is_routed_between_bridges_is_not_for_a_node_that_is_no_router(site: tuple[Node, bool]) -> None:
    node, _seen = site
    node.run("sh", "-ec", """
        ip link add br1 type bridge; ip addr add 203.0.113.1/24 dev br1; ip link set br1 up
        ip netns add m4; ip link add m4 type veth peer name eth0 netns m4; ip link set m4 master br1 up
        ip -n m4 addr add 203.0.113.2/24 dev eth0; ip -n m4 link set eth0 up
        ip -n m4 route add default via 203.0.113.1; ip -n m2 route add default via 198.51.100.1
        """)  # fmt: skip
    with subprocess.Popen(["sleep", "600"]) as stepd, answering(node, *PORTS, netns="m4"):
        questions = [f"udp,203.0.113.2,{port}" for port in PORTS]
        node.helper("setup", request(21, 0, stepd.pid, sets="open:2", nodes=(ONE,)))
        assert not ask(node, *questions, prefix=("ip", "netns", "exec", "m2"))
        node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")  # it is a router now, but never to tunnels
        node.helper("setup", request(22, 0, stepd.pid, sets="open:2", nodes=(ONE,)))
        assert [*ask(node, *questions, prefix=("ip", "netns", "exec", "m2"))] == questions[:1]
        stepd.kill()

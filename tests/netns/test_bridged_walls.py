"""Bridges of the site: a VM there cannot pretend to be a server of the site's, neither by its MAC nor, where the site
gives addresses, by its address.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime import addressing
from tests.netns.fabric import Guest, Node, release, request
from tests.netns.lan import heard_in
from tests.netns.steal import ADDRESSES, FRAMES, HONEST, MACS, SERVERS_MAC

JOB, ONE = 12, "192.0.2.1"
NETWORKS = """
free: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: free}}
given:
  type: bridged-ethernet
  settings: {host-bridge: lan0, tap-prefix: given, addresses: [198.51.100.8/29, 203.0.113.7, "2001:db8:0:1::/64"]}
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a bridge of the site, on which is a machine of the site's."""
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        node = Node(Path(directory), "one")
        try:
            node.configure({}, {"free": ["free"], "given": ["given"]})
            (node.confdir / "networks.yaml").write_text(NETWORKS)
            node.run("sh", "-ec", f"""
                ip link add eth0 type veth peer name eth1; ip addr add {ONE}/24 dev eth0; ip link set eth0 up
                ip link add lan0 type bridge; ip link set lan0 up; ip netns add site
                ip link add site0 type veth peer name eth0 address {SERVERS_MAC} netns site; ip link set site0 master lan0 up
                ip -n site link set eth0 up
                echo 0 | tee /proc/sys/net/bridge/bridge-nf-call-ip*tables  # which cuts padding off, and so the names of frames
                """)  # fmt: skip
            yield node
        finally:
            node.close()


@pytest.fixture(scope="module", params=["free", "given"])
def vm(node: Node, request: pytest.FixtureRequest) -> Iterator[tuple[Guest, bool]]:
    """A VM on such a network, and whether the site gives addresses there."""
    name = request.param
    with subprocess.Popen(["sleep", "600"]) as stepd:
        node.helper("setup", set_up_of(name, stepd.pid))
        guest = Guest(node, JOB, 0, mac=addressing.bridged_mac(JOB, 0, 0))
        yield guest, name == "given"
        node.helper("release", release(JOB))
        node.run("ip", "netns", "del", guest.name)
        stepd.kill()


def set_up_of(name: str, stepd: int) -> str:
    return request(JOB, 0, stepd, sets=f"{name}:2", nodes=(ONE,))


def heard(guest: Guest, *names: str) -> set[str]:
    """Return which of some frames of a guest's reach the site's machine."""
    with heard_in(guest.node, "site") as frames:
        guest.run(sys.executable, "-m", "tests.netns.steal", *names)
    return {name for name in names if any(f"<{name}>".encode().hex() in frame for frame in frames)}


def test_a_vm_is_itself_and_nobody_else(vm: tuple[Guest, bool]) -> None:
    guest, given = vm
    passing = {*HONEST, *(ADDRESSES if not given else ())}
    assert heard(guest, *FRAMES) == passing
    wall = "to_site0"
    text = guest.node.in_job(JOB, "nft", "list", "chain", "bridge", "pcocc", wall).stdout
    guest.node.in_job(JOB, "nft", f"flush chain bridge pcocc {wall}; add rule bridge pcocc {wall} accept")
    assert heard(guest, *FRAMES) == {*FRAMES}
    (guest.node.confdir / "again.nft").write_text(f"flush chain bridge pcocc {wall}\n{text}")
    guest.node.in_job(JOB, "nft", "-f", "/etc/pcocc/again.nft")
    assert heard(guest, *MACS) == set()

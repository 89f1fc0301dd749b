"""The site's firewall service flushes every table of a node (`nft flush ruleset`): then the forwarding ends together with
the walls.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.fabric import Guest, Node, release, request
from tests.netns.lan import answering, ask, join

ONE, OUT = "192.0.2.1", "192.0.2.9"
NETWORKS = {"open": "{int-network: 10.200.0.0/16, reverse-nat: {vm-port: 22, min-host-port: 60222, max-host-port: 60225}}"}


@pytest.fixture
def hosts() -> Iterator[tuple[Node, Node, int]]:
    """A node, another machine, and the slurmstepd of the node's jobs."""
    with tempfile.TemporaryDirectory(dir="/root") as directory, subprocess.Popen(["sleep", "600"]) as stepd:
        switch, node, out = (Node(Path(directory), name) for name in ("switch", "one", "out"))
        try:
            join(switch, {ONE: node, OUT: out})
            node.configure(NETWORKS, {"open": ["open"]})
            yield node, out, stepd.pid
        finally:
            stepd.kill()
            for one in (switch, node, out):
                one.close()


def set_up(node: Node, job: int, stepd: int) -> subprocess.CompletedProcess[str]:
    return node.helper("setup", request(job, 0, stepd, sets="open:2", nodes=(ONE,)))


def reached(vm: Guest, node: Node, out: Node) -> list[str]:
    """Return what a VM reaches of the world and of its node, and whether another machine reaches it; each answers at
    once or never."""
    with answering(out, 80), answering(node, 80), answering(node, 22, netns=vm.name):
        found = [*ask(vm, f"tcp,{OUT},80", f"udp,{OUT},80", f"tcp,{ONE},80", f"udp,{ONE},80", "tcp,169.254.64.0,80")]
        return sorted(found) + [f"in {one}" for one in ask(out, "tcp,192.0.2.1,60222")]


FLUSHES = ["flush ruleset", "flush ruleset inet", "delete table inet pcocc-21", "flush table inet pcocc-21"]
OPEN = [f"tcp,{OUT},80", f"udp,{OUT},80", "in tcp,192.0.2.1,60222"]


@pytest.mark.parametrize("flush", FLUSHES)
def test_without_the_walls_there_is_no_way(hosts: tuple[Node, Node, int], flush: str) -> None:
    node, out, stepd = hosts
    set_up(node, 21, stepd)
    vm = Guest(node, 21, 0)
    vm.dhcp()
    assert reached(vm, node, out) == OPEN
    node.run("nft", flush)
    assert reached(vm, node, out) == []
    if flush.startswith("flush table"):
        node.run("nft", "delete table inet pcocc-21")
    for verb in ("setup", "start"):  # anybody's next job notices it, and so does slurmd's next start
        done = set_up(node, 22, stepd) if verb == "setup" else node.helper("start", "")
        assert "nft tables of job 21 were missing, and are there again" in done.stderr
        assert reached(vm, node, out) == OPEN
        node.run("nft", "delete table inet pcocc-21")
    node.helper("release", release(21))
    node.helper("release", release(22))
    node.run("ip", "netns", "del", vm.name)
    assert node.leftovers() == ""


def test_what_forwards_without_the_true_address_being_hidden_goes_on(hosts: tuple[Node, Node, int]) -> None:
    """As it was before: the job sent from its own end's address, and once the tables were gone the node forwarded and
    accepted everything.
    """
    node, out, stepd = hosts
    set_up(node, 21, stepd)
    vm = Guest(node, 21, 0)
    vm.dhcp()
    node.in_job(21, "nft", "delete chain inet pcocc shut")
    node.run("nft", "flush ruleset")
    assert f"tcp,{ONE},80" in reached(vm, node, out)

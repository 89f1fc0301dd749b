"""A node that dies, and a job that shrinks: what is left of the cluster goes on."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.fabric import Guest, Node, release, request
from tests.netns.lan import join

NODES = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
NETWORKS = {"routed": "{int-network: 10.200.0.0/16}", "flat": "{network-layer: L2}"}
GATEWAY = "10.200.255.254"


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Node]]:
    """Three nodes of job 12, two VMs on each, which are on an L3 and on an L2 network."""
    with tempfile.TemporaryDirectory(dir="/root") as directory, subprocess.Popen(["sleep", "600"]) as stepd:
        switch, nodes = Node(Path(directory), "switch"), {name: Node(Path(directory), name) for name in NODES}
        try:
            join(switch, nodes)
            for index, node in enumerate(nodes.values()):
                node.configure(NETWORKS, {"default": ["routed", "flat"]})
                node.helper("setup", request(12, index, stepd.pid, sets="default:6", nodes=NODES))
            yield nodes
        finally:
            stepd.kill()
            for node in (switch, *nodes.values()):
                node.close()


@pytest.mark.parametrize("lost", ["released", "dead"])
def test_the_other_nodes_vms_go_on(hosts: dict[str, Node], lost: str) -> None:
    routed = {rank: Guest(hosts[NODES[rank // 2]], 12, rank) for rank in ((0, 2, 4) if lost == "released" else (1, 3))}
    flat = {rank: Guest(hosts[NODES[rank // 2]], 12, rank, 1) for rank in routed}
    for rank in routed:
        routed[rank].dhcp()
        flat[rank].run("ip", "addr", "add", f"172.30.0.{rank + 1}/24", "dev", "eth0")
    here, there, *_ = routed
    if lost == "released":
        for rank in (there, 4):
            routed[here].run("ping", "-c1", "-W5", f"10.200.0.{rank + 1}")
            flat[here].run("ping", "-c1", "-W5", f"172.30.0.{rank + 1}")
        hosts[NODES[2]].helper("release", release(12))
    else:
        hosts[NODES[2]].run("ip", "link", "set", "eth0", "down")
    assert routed[here].run("ping", "-c1", "-W1", "10.200.0.5", check=False).returncode != 0
    for vm, other in ((here, there), (there, here)):
        routed[vm].run("ping", "-c1", "-W5", f"10.200.0.{other + 1}")
        flat[vm].run("ping", "-c1", "-W5", f"172.30.0.{other + 1}")
        assert f"vm{other}.vcluster" in routed[vm].run("busybox", "nslookup", f"10.200.0.{other + 1}", GATEWAY).stdout

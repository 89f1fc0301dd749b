"""Releasing is complete: root's helper is stopped before every step of set-up and release, and the node is clean in the end."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.fabric import ENVIRONMENT, Node, request
from tests.waiting import limit

REVERSE_NAT = "reverse-nat: {vm-port: 22, min-host-port: 60222, max-host-port: 60225}"
NETWORKS = """
inward: {type: ethernet, settings: {WAY}}
flat: {type: ethernet, settings: {network-layer: L2}}
site: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: site}}
"""
SET_UP = {"open", "mount", "os.rename", "pcocc.started"}
MODES = {
    "die_in_setup": SET_UP,
    "die_in_release": {"os.remove", "os.rmdir", "pcocc.kill", "pcocc.started"},
    "die_in_reclaim": {"os.remove", "os.rmdir", "pcocc.kill", "pcocc.started"},
    "release_after_death": SET_UP,
    "repeat_after_death": SET_UP,
    "fail": SET_UP,
    "pause": SET_UP,
}


@pytest.fixture
def node() -> Iterator[Node]:
    """A node whose VMs have an interface of each kind of network."""
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        node = Node(Path(directory), "one")
        try:
            (node.confdir / "networks.yaml").write_text(NETWORKS.replace("WAY", REVERSE_NAT))
            (node.confdir / "resources.yaml").write_text("default: {networks: [inward, flat, site], default: true}\n")
            node.run(
                "sh", "-ec",
                "ip link add eth0 type veth peer name eth1; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up",
            )
            node.run("sh", "-ec", "ip link add lan0 type bridge; ip link set lan0 up")
            yield node
        finally:
            node.close()


@pytest.mark.parametrize("mode", MODES)  # see tests.netns.deadly
def test_nothing_of_a_job_stays_wherever_its_helper_is_stopped(node: Node, mode: str) -> None:
    if mode == "pause":  # ports of the node are chosen under a lock, for which a job without such ports does not wait
        (node.confdir / "networks.yaml").write_text(NETWORKS.replace("WAY", "allow-outbound: none"))
    words = ["nsenter", f"--target={node.holder.pid}", "--net", "--mount", sys.executable, "-m", "tests.netns.deadly", mode]
    text = request(12, 0, 1).replace("stepd 1", "stepd STEPD")
    done = subprocess.run(
        words, input=text, capture_output=True, text=True, timeout=limit(300), check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    stops = [json.loads(line) for line in done.stdout.splitlines()]
    assert not any(stop["left"] for stop in stops), "\n".join(str(stop) for stop in stops if stop["left"])
    assert {json.loads(stop["step"])[0] for stop in stops} >= MODES[mode], "fewer are counted than there are"
    if mode == "pause":
        assert {stop["status"] for stop in stops} == {0}
    elif mode == "fail":
        wrong = [stop for stop in stops if not (stop["said"].startswith("pcocc: error: ") or stop["status"] == 0)]
        assert wrong == [] and sum(stop["status"] for stop in stops) > 0.9 * len(stops)
    else:
        assert {stop["status"] for stop in stops} == {-9}

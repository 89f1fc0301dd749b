"""VLANs of networks on a bridge of the site, for a kernel with CONFIG_BRIDGE_VLAN_FILTERING: see test_vlans.

The network `cut` is in VLAN 100 without tags, in 101 with tags, and hears 102 without; `other` is in 200. A machine of the site is on a trunk.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime import naming
from tests.netns.fabric import Guest, Node, release, request
from tests.netns.lan import HERE, PYTHON, heard_in, listening

NETWORKS = """
cut:
  type: bridged-ethernet
  settings:
    host-bridge: lan0
    tap-prefix: cut
    vlans: [{vid: 100, type: native}, {vid: 101, type: tagged}, {vid: 102, type: untagged}]
other: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: oth, vlans: [{vid: 200, type: native}]}}
"""
SITE = """
ip link add lan0 type bridge vlan_filtering 1; ip link set lan0 up; ip netns add site
ip link add site0 type veth peer name eth0 netns site; ip link set site0 master lan0 up; ip -n site link set eth0 up
for vid in 100 101 102 200; do bridge vlan add dev site0 vid $vid; done
"""
ALL, KIND = "ff:ff:ff:ff:ff:ff", "88b5"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with job 12 in `cut`, and jobs 13 and 14 in `other`."""
    with tempfile.TemporaryDirectory(dir="/root") as directory, subprocess.Popen(["sleep", "900"]) as stepd:
        node = Node(Path(directory), "one")
        try:
            (node.confdir / "networks.yaml").write_text(NETWORKS)
            (node.confdir / "resources.yaml").write_text("cut: {networks: [cut], default: true}\nother: {networks: [other]}\n")
            node.run("sh", "-ec", SITE)
            for job, name in ((12, "cut"), (13, "other"), (14, "other")):
                node.helper("setup", request(job, 0, stepd.pid, sets=f"{name}:2", nodes=("192.0.2.1",)))
            yield node
        finally:
            stepd.kill()
            node.close()


@pytest.fixture(scope="module")
def vms(node: Node) -> dict[int, Guest]:
    return {job: Guest(node, job, 0, mac=naming.bridged_mac(job, 0, 0)) for job in (12, 13, 14)}


def tagged(vid: int | None) -> str:
    return "" if vid is None else f"8100{vid:04x}"


def say(node: Node, where: str, frames: dict[str, int | None]) -> None:
    """Send frames from a namespace, by their texts, each with a VLAN tag or without."""
    words = [word for text, vid in frames.items() for word in (f"{tagged(vid)}{KIND}", f"<{text}>")]
    node.run("ip", "netns", "exec", where, PYTHON, "-IS", f"{HERE}/say.py", ALL, *words)


def tags(heard: list[str], texts: dict[str, int | None]) -> dict[str, int | None]:
    """Return the tags with which frames have arrived, by their texts."""
    found = {}
    for text in texts:
        for frame in heard:
            if f"<{text}>".encode().hex() in frame:
                found[text] = int(frame[28:32], 16) & 0xFFF if frame[24:28] == "8100" else None
    return found


def test_a_port_is_in_its_networks_vlans_alone(node: Node) -> None:
    (port,) = json.loads(node.run("bridge", "-json", "vlan", "show", "dev", naming.bridged_port("cut", 12, 0)).stdout)
    assert {one["vlan"]: sorted(one.get("flags", [])) for one in port["vlans"]} == {
        100: ["Egress Untagged", "PVID"], 101: [], 102: ["Egress Untagged"],
    }  # fmt: skip


def test_a_vm_speaks_in_its_vlans_only(node: Node, vms: dict[int, Guest]) -> None:
    sent = {"bare": None, "vlan-101": 101, "vlan-102": 102, "vlan-1": 1, "vlan-200": 200, "vlan-300": 300}
    with heard_in(node, "site") as frames:
        say(node, vms[12].name, {**sent, "END": None})
    assert tags(frames, sent) == {"bare": 100, "vlan-101": 101, "vlan-102": 102}


def test_a_vm_hears_its_vlans_only(node: Node, vms: dict[int, Guest]) -> None:
    sent = {"bare": None, "vlan-100": 100, "vlan-101": 101, "vlan-102": 102, "vlan-200": 200}
    with listening(vms[12]) as frames:
        say(node, "site", {**sent, "END": 100})
    assert tags(frames, sent) == {"vlan-100": None, "vlan-101": 101, "vlan-102": None}


def test_jobs_of_one_vlan_are_on_one_segment_and_of_two_are_not(node: Node, vms: dict[int, Guest]) -> None:
    with listening(vms[13]) as frames:
        for sent in ({"bare": None, "vlan-100": 100, "vlan-200": 200}, {"END": None}):
            say(node, vms[12 if "bare" in sent else 14].name, sent)
    assert tags(frames, {"bare": None, "vlan-100": None, "vlan-200": None}) == {}


def test_releasing_a_job_leaves_the_sites_vlans_as_they_are(node: Node) -> None:
    def others() -> list[str]:
        every = json.loads(node.run("bridge", "-json", "vlan", "show").stdout)
        return sorted(json.dumps(one) for one in every if not one["ifname"].startswith("oth"))

    before = others()
    node.helper("release", release(14))
    assert naming.bridged_port("oth", 14, 0) not in node.run("ip", "-br", "link").stdout
    assert others() == before

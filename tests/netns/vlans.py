"""VLANs of networks on a bridge of the site: a port is in those that are listed, in both directions, and in no other.

Needs a kernel with CONFIG_BRIDGE_VLAN_FILTERING, hence the name: tests/qemu/test_vlans.py runs this file in a guest that has it.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime import addressing
from tests.netns.fabric import Guest, Node, release, request
from tests.netns.lan import HERE, PYTHON, heard_in

SITE = """
mixed: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: mixed, vlans: [
  {vid: 100, type: native}, {vid: 101, type: tagged}, {vid: 102, type: untagged}]}}
trunk: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: trunk, vlans: [{vid: 101, type: tagged}]}}
free: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: free}}
red: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: red, vlans: [{vid: 200, type: native}]}}
blue: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: blue, vlans: [{vid: 300, type: native}]}}
"""
UNTAGGED = "none"
SENT = [UNTAGGED, 0, 1, 100, 101, 102, 103, 4094]
# what is sent with which tag -> the tag it arrives with; the site's machine is on a trunk of all VLANs, with 1 untagged
FROM_VM = {
    "mixed": {UNTAGGED: 100, 0: 100, 100: 100, 101: 101, 102: 102},
    "trunk": {101: 101},
    "free": {UNTAGGED: UNTAGGED, 0: UNTAGGED, 1: UNTAGGED},
}
TO_VM = {
    "mixed": {100: UNTAGGED, 101: 101, 102: UNTAGGED},
    "trunk": {101: 101},
    "free": {UNTAGGED: UNTAGGED, 0: UNTAGGED, 1: UNTAGGED},
}
JOBS = {12: [*FROM_VM, "red"], 13: ["red", "blue"]}
LAST = {"mixed": 101, "trunk": 101, "free": UNTAGGED}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a bridge of the site that filters VLANs, and a machine of the site on a trunk."""
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        node = Node(Path(directory), "one")
        try:
            node.configure({}, {f"job{job}": names for job, names in JOBS.items()})
            (node.confdir / "networks.yaml").write_text(SITE)
            node.run("ip", "-batch", "-", text="link add lan0 type bridge vlan_filtering 1\nlink set lan0 up\nnetns add site\n"
                     "link add site0 type veth peer name eth0 netns site\nlink set site0 master lan0 up\n")  # fmt: skip
            node.run("bridge", "vlan", "add", "dev", "site0", "vid", "2-4094")
            node.run("ip", "-n", "site", "link", "set", "eth0", "up")
            yield node
        finally:
            node.close()


def tagged(tag: int | str) -> str:
    return ("" if tag == UNTAGGED else f"8100{tag:04x}") + "88b5"


def say_all(node: Node, netns: str, last: int | str, tags: list[int | str] = SENT) -> None:
    """Send a broadcast with each tag that names it, then END."""
    words = [word for tag in tags for word in ("ff:ff:ff:ff:ff:ff", tagged(tag), f"<{tag}>")]
    node.run("ip", "netns", "exec", netns, PYTHON, "-IS", str(HERE / "say.py"), *words, "ff:ff:ff:ff:ff:ff", tagged(last), "END")


@pytest.fixture(scope="module")
def vms(node: Node) -> Iterator[dict[tuple[int, str], str]]:
    """Set up a VM of each of two jobs, and release them; gives the namespaces of their interfaces, by job and network."""
    with subprocess.Popen(["sleep", "600"]) as stepd:
        try:
            found = {}
            for job, names in JOBS.items():
                node.helper("setup", request(job, 0, stepd.pid, sets=f"job{job}:2", nodes=("192.0.2.1",)))
                for number, name in enumerate(names):
                    found[job, name] = Guest(node, job, 0, number, addressing.bridged_mac(job, 0, number)).name
            yield found
        finally:
            for job in JOBS:
                node.helper("release", release(job))
            stepd.kill()
        assert [
            line.split("@")[0] for line in node.run("ip", "-br", "link", "show", "master", "lan0").stdout.splitlines()
        ] == ["site0"]


def arrived(frames: list[str]) -> dict[int | str, int | str]:
    """Return, for each frame of ours that was heard, the tag it was sent with and the one it came with."""
    found: dict[int | str, int | str] = {}
    for frame in map(bytes.fromhex, frames):
        name = re.search(rb"<(\w+)>", frame)
        if name:
            sent = name[1].decode()
            tag = int.from_bytes(frame[14:16]) & 0xFFF if frame[12:14] == b"\x81\x00" else 0
            found[sent if sent == UNTAGGED else int(sent)] = tag or UNTAGGED  # a tag with VLAN 0 is priority only
    return found


@pytest.mark.parametrize("name", FROM_VM)
def test_frames_pass_in_listed_vlans_only(node: Node, vms: dict[tuple[int, str], str], name: str) -> None:
    vm = vms[12, name]
    with heard_in(node, "site") as at_site:
        say_all(node, vm, LAST[name])
    with heard_in(node, vm) as at_vm:
        say_all(node, "site", LAST[name])
    assert (arrived(at_site), arrived(at_vm)) == (FROM_VM[name], TO_VM[name])


def test_jobs_in_two_vlans_do_not_hear_each_other_and_in_one_they_do(node: Node, vms: dict[tuple[int, str], str]) -> None:
    red, also_red, blue = vms[12, "red"], vms[13, "red"], vms[13, "blue"]
    with heard_in(node, blue) as apart:
        with heard_in(node, also_red) as together:
            say_all(node, red, UNTAGGED, [UNTAGGED, 0, 200, 300])
        say_all(node, "site", 300, [])
    with heard_in(node, also_red) as back:
        say_all(node, blue, UNTAGGED, [UNTAGGED, 0, 200, 300])
        say_all(node, "site", 200, [])
    assert (arrived(together), arrived(apart), arrived(back)) == ({UNTAGGED: UNTAGGED, 0: UNTAGGED, 200: UNTAGGED}, {}, {})

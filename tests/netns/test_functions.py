"""Root's helper gives virtual functions to VMs and takes them back. /sys is made up, and ip(8) is replaced by a script that
notes what it is told.
"""

import json
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.addressing import bridged_mac
from pcocc_runtime.documents.node import FunctionFacts
from pcocc_runtime.documents.wire import HELPER_CHARGE
from tests.fake_functions import write_card, write_ethernet
from tests.netns.fabric import Node, release, request
from tests.netns.function_node import FILES, NodeWithFunctions

PLACE = "account a\npartition p\nqos \nlicenses pkey2001:1\ngres one nic:2(IDX:1-2)\nsets"
NO_GUID = ":".join(["ff"] * 8)


@pytest.fixture
def node() -> Iterator[NodeWithFunctions]:
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        Path(directory).chmod(0o755)
        found = NodeWithFunctions(Path(directory))
        try:
            yield found
        finally:
            found.close()
            if found.made:
                FILES.rmdir()


@pytest.fixture
def stepd() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process
        finally:
            process.kill()


def told(job: int, pid: int) -> str:
    return request(job, 0, pid, sets="hpc:2", nodes=("one",)).replace("sets", PLACE)


def joining(function: int, rank: int) -> list[str]:
    guid = f"c2:cc:20:01:00:00:{rank:02x}"
    words = ["state disable", f"node_guid {guid}:00", f"port_guid {guid}:01", "state auto"]
    return [f"link set dev ib0 vf {function} {what}" for what in words]


def leaving(*functions: int) -> list[str]:
    words = ["state disable", f"node_guid {NO_GUID}", f"port_guid {NO_GUID}"]
    return [f"link set dev ib0 vf {function} {what}" for function in functions for what in words]


def test_vms_get_their_functions_and_release_takes_them_back(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    text = told(12, stepd.pid)
    asked = node.ask("setup", text.replace(PLACE, "sets"))
    assert asked.returncode == HELPER_CHARGE and node.said() == []
    done = node.ask("setup", text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert node.said() == [*joining(1, 0), *joining(2, 1)]
    uid = int(text.partition("\nuid ")[2].partition("\n")[0])
    assert node.owners() == [0, uid, uid, 0]
    assert node.facts(12).functions == {
        rank: (FunctionFacts("ib", f"0000:81:00.{rank + 2}", 1, 0x2001, f"c2cc:2001:0000:0{rank}01"),)
        for rank in (0, 1)
    }
    assert done.stdout.splitlines()[:2] == ["tap 0 tap0n0", "tap 1 tap1n0"]
    assert node.ask("release", release(12)).returncode == 0
    assert node.said() == leaving(1, 2) and node.owners() == [0] * 4 and node.leftovers() == ""


def test_devices_of_pcocc_yaml_are_given_and_taken_back(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    for bus, group in ((0x3B, 40), (0xAF, 41), (0x5E, 42)):
        write_card(node.sys, f"0000:{bus:02x}:00.0", "144d:a80a" if group == 42 else "10de:20b2", group)
    node.run("touch", *(f"/dev/vfio/{group}" for group in (40, 41, 42)))
    with (node.confdir / "pcocc.yaml").open("a") as file:
        file.write("devices: {'gpu:a100': {ids: ['10de:20b2']}, nvme: {addresses: ['5e:00.0']}}\n")
    with (node.confdir / "resources.yaml").open("a") as file:
        file.write("ai: {networks: [lan], devices: ['gpu:a100']}\n")
    text = request(12, 0, stepd.pid, sets="ai:1,ai:1", nodes=("one",)).replace("ai:1,ai:1", "ai:1,ai:1:nvme::1")
    place = PLACE.replace("nic:2(IDX:1-2)", "gpu:a100:2(IDX:0-1),nvme:1(IDX:0)")
    assert node.ask("setup", text).returncode == HELPER_CHARGE
    done = node.ask("setup", text.replace("sets", place))
    assert done.returncode == 0, done.stdout + done.stderr
    gpus = [FunctionFacts("gpu:a100", f"0000:{bus}:00.0", 0) for bus in ("3b", "af")]
    assert node.facts(12).functions == {0: (gpus[0],), 1: (gpus[1], FunctionFacts("nvme", "0000:5e:00.0", 0))}
    owners = ("stat", "-c", "%u", *(f"/dev/vfio/{group}" for group in (40, 41, 42)))
    uid = text.partition("\nuid ")[2].partition("\n")[0]
    assert node.run(*owners).stdout.split() == [uid] * 3 and node.owners() == [0] * 4
    assert node.ask("release", release(12)).returncode == 0
    assert node.run(*owners).stdout.split() == ["0"] * 3 and node.said() == [] and node.leftovers() == ""


@pytest.mark.parametrize("verb", ["start", "setup"])
def test_what_a_killed_slurmstepd_leaves_is_taken_back(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]", verb: str
) -> None:
    with subprocess.Popen(["sleep", "600"]) as dead:
        assert node.ask("setup", told(11, dead.pid)).returncode == 0
        dead.kill()
    node.said()
    text = told(12, stepd.pid).replace("pkey2001", "pkey2003") if verb == "setup" else ""
    done = node.ask(verb, text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert node.said()[:6] == leaving(1, 2)
    if verb == "setup":
        assert node.ask("release", release(12)).returncode == 0
    assert node.owners() == [0] * 4 and node.leftovers() == ""


def test_functions_that_cannot_be_taken_back_are_kept_in_mind(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    assert node.ask("setup", told(12, stepd.pid)).returncode == 0
    (node.folder / "refuse").touch()
    assert node.ask("release", release(12)).returncode == 1
    assert json.loads(node.run("cat", "/run/pcocc/.state/12.devices").stdout)["devices"] == [
        "/dev/vfio/22",
        "/dev/vfio/23",
    ]
    stepd.kill()
    stepd.wait()
    (node.folder / "refuse").unlink()
    assert node.ask("start").returncode == 0
    assert node.leftovers() == ""


def test_what_another_user_has_is_not_given_away(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    node.run("chown", "4242", "/dev/vfio/23")
    done = node.ask("setup", told(12, stepd.pid))
    assert done.returncode == 1 and "/dev/vfio/23 of this node still belongs to another user" in done.stdout
    assert node.said() == [] and node.owners() == [0, 0, 4242, 0] and node.leftovers() == ""


def plugged(number: int, mac: str) -> list[str]:
    words = ("vlan 100", "spoofchk on", "trust off", "min_tx_rate 0 max_tx_rate 5000", f"mac {mac}")
    return [f"link set dev ens1f0 vf {number} {what}" for what in words]


def unplugged(*numbers: int) -> list[str]:
    words = ("mac 00:00:00:00:00:00", "vlan 0", "min_tx_rate 0 max_tx_rate 0")
    return [f"link set dev ens1f0 vf {number} {what}" for number in numbers for what in words]


@pytest.fixture
def wired(node: NodeWithFunctions) -> NodeWithFunctions:
    """The node with an Ethernet device whose functions VMs of a resource set have."""
    write_ethernet(node.sys, 3)
    node.run("touch", *(f"/dev/vfio/{group}" for group in (31, 32, 33)))
    with (node.confdir / "networks.yaml").open("a") as file:
        file.write("wire: {type: sriov-ethernet, settings: {host-device: ens1f0, gres: vf, vlan: 100, rate: 5000}}\n")
    with (node.confdir / "resources.yaml").open("a") as file:
        file.write("fast: {networks: [lan, wire]}\n")
    return node


def wired_text(job: int, pid: int, sets: str = "fast:2", places: str = "1-2") -> str:
    place = PLACE.replace("nic:2(IDX:1-2)", f"vf:2(IDX:{places})").replace("pkey2001:1", "")
    return request(job, 0, pid, sets=sets, nodes=("one",)).replace("sets", place)


def test_functions_of_ethernet_have_their_vms_address_and_vlan_until_the_release(
    wired: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    done = wired.ask("setup", wired_text(12, stepd.pid))
    assert done.returncode == 0, done.stdout + done.stderr
    macs = [bridged_mac(12, rank, 63) for rank in (0, 1)]
    assert wired.said() == [*plugged(1, macs[0]), *plugged(2, macs[1])]
    assert wired.facts(12).functions == {
        rank: (FunctionFacts("wire", f"0000:91:10.{rank + 1}", 1, None, None, macs[rank], 1500),) for rank in (0, 1)
    }
    owners = ("stat", "-c", "%u", *(f"/dev/vfio/{group}" for group in (31, 32, 33)))
    uid = wired_text(12, 0).partition("\nuid ")[2].partition("\n")[0]
    assert wired.run(*owners).stdout.split() == ["0", uid, uid]
    assert wired.ask("release", release(12)).returncode == 0
    assert wired.said() == unplugged(1, 2) and wired.run(*owners).stdout.split() == ["0"] * 3 and wired.leftovers() == ""


@pytest.mark.parametrize("verb", ["start", "setup"])
def test_functions_of_ethernet_are_taken_back_after_a_killed_slurmstepd(
    wired: NodeWithFunctions, stepd: "subprocess.Popen[bytes]", verb: str
) -> None:
    with subprocess.Popen(["sleep", "600"]) as dead:
        assert wired.ask("setup", wired_text(11, dead.pid)).returncode == 0
        dead.kill()
    wired.said()
    assert wired.ask(verb, wired_text(12, stepd.pid) if verb == "setup" else "").returncode == 0
    said = wired.said()
    assert said[:6] == unplugged(1, 2)
    assert said[6:] == ([*plugged(1, bridged_mac(12, 0, 63)), *plugged(2, bridged_mac(12, 1, 63))] if verb == "setup" else [])
    if verb == "setup":
        assert wired.ask("release", release(12)).returncode == 0
    assert wired.leftovers() == ""


def test_a_driver_that_refuses_leaves_the_function_with_nobody(
    wired: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    script = (wired.folder / "ip").read_text()
    refused = "echo RTNETLINK answers: Operation not supported >&2; exit 1"
    rule = f"! grep -q 'max_tx_rate 5000' {wired.folder}/text || {{ {refused}; }}"
    (wired.folder / "ip").write_text(re.sub(r"(?m)^  \[ ! -e .* exit 1$", f"  {rule}", script))
    done = wired.ask("setup", wired_text(12, stepd.pid))
    assert done.returncode == 1 and "Operation not supported" in done.stdout
    assert wired.said()[-6:] == unplugged(1, 2)
    assert wired.run("stat", "-c", "%u", "/dev/vfio/32").stdout.split() == ["0"] and wired.leftovers() == ""


@pytest.mark.parametrize(
    ("sets", "places", "said"),
    [("fast:2", "0", "the job has 1 devices of GRES vf"), ("fast:3", "0-1", "the step runs 2 VMs"), ("fast:2", "2-3", "only 3")],
)
def test_whoever_forges_a_request_gets_no_function_of_ethernet(
    wired: NodeWithFunctions, stepd: "subprocess.Popen[bytes]", sets: str, places: str, said: str
) -> None:
    done = wired.ask("setup", wired_text(12, stepd.pid, sets, places))
    assert done.returncode == 1 and said in done.stdout
    assert wired.said() == [] and wired.leftovers() == ""
    assert wired.run("stat", "-c", "%u", "/dev/vfio/31", "/dev/vfio/33").stdout.split() == ["0", "0"]


def sent(node: Node, words: list[str]) -> list[tuple[int, bytes]]:
    """Return the attributes about virtual functions, by number, that ip(8) sends to the kernel for some words."""
    done = node.run("strace", "-e", "trace=sendmsg", "-e", "write=all", "ip", *words, check=False)
    shown = done.stderr.partition("nlmsg_type=RTM_NEWLINK")[2]
    message = bytes.fromhex("".join(re.findall(r"(?m)^ \| [0-9a-f]{5}  (.{49})", shown)))
    assert "Operation not supported" in shown, done.stderr  # by the device: the words have passed
    [(_list, inner)] = [one for one in attributes(message[32:]) if one[0] & 0x3FFF == 22]  # IFLA_VFINFO_LIST
    [(_info, own)] = attributes(inner)
    return attributes(own)


def guid(port: int) -> bytes:
    return struct.pack("=I4xQ", 7, 0xC2CC_2001_0000_0000 + port)


def attributes(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        found.append((kind, data[4:size]))
        data = data[(size + 3) & ~3 :]
    return found


def test_the_kernel_is_told_of_a_function_what_is_meant(node: NodeWithFunctions) -> None:
    """The numbers are those of linux/if_link.h: IFLA_VF_MAC, VLAN, SPOOFCHK, LINK_STATE, RATE, TRUST, IB_NODE_GUID and so on."""
    node.run("ip", "tuntap", "add", "dev", "ens1f0", "mode", "tap")
    mac = bridged_mac(12, 0, 63)
    lines = [*plugged(7, mac), *unplugged(7), *(line.replace("ib0", "ens1f0") for line in joining(7, 0))]
    heard = [sent(node, line.split()) for line in lines]
    vlans = [struct.pack("=III", 7, vid, 0) for vid in (100, 0)]
    on, off = struct.pack("=II", 7, 1), struct.pack("=II", 7, 0)
    rates = [struct.pack("=III", 7, 0, most) for most in (5000, 0)]
    macs = [struct.pack("=I32s", 7, bytes.fromhex(one.replace(":", ""))) for one in (mac, "00" * 6)]
    assert heard == [
        [(2, vlans[0])], [(4, on)], [(9, off)], [(6, rates[0])], [(1, macs[0])],
        [(1, macs[1])], [(2, vlans[1])], [(6, rates[1])],
        [(5, struct.pack("=II", 7, 2))], [(10, guid(0))], [(11, guid(1))], [(5, struct.pack("=II", 7, 0))],
    ]  # fmt: skip

"""The drawing of a job's networks."""

import json
from dataclasses import replace

import pytest

from pcocc_runtime.documents.node import FunctionFacts
from pcocc_runtime.observe import draw
from tests.unit.observe import netjob

NODES = [netjob.answer(number) for number in (1, 2)]

DRAWING = """\
job 12: 4 VMs on 2 nodes

lan: L3, MTU 1450, 4 VMs, VNI 12, UDP port 24832, 10.200.0.0/16, gateway 10.200.255.254, domain vcluster, outbound all
pv: L2, MTU 8950, 1 VM, VNI 12, UDP port 24836
site: bridged, MTU 1500, 1 VM
own: L3, MTU 1450, 1 VM, VNI 12, UDP port 24844, 10.201.0.0/24, gateway 10.201.0.254, domain vcluster, outbound all

                      DEVICE  ADDRESS         MAC                RECEIVED  SENT   DROPPED  REACHED BY
n1
|- lan                br0     10.200.255.253
|  |- vm0 eth0        tap0n0  10.200.0.1      52:54:00:00:00:00  999 B     2 KiB  0        61222>22
|  |- vm1 eth0        tap1n0  10.200.0.2      52:54:00:00:00:01  999 B     2 KiB  1        61223>22
|  `- to other nodes  vx0                                        5 MiB     0 B    0
|- pv                 br1
|  `- to other nodes  vx1                                        0 B       0 B    0
|- site               br2
|- own                br3     10.201.0.253
|  `- to other nodes  vx3                                        0 B       0 B    0
`- way out            uplink                                     10 B      20 B   0
n2
|- lan                br0     10.200.255.252
|  |- vm2 eth0        tap2n0  10.200.0.3      52:54:00:00:00:02  999 B     2 KiB  2        61224>22
|  |- vm3 eth3        tap3n0  10.200.0.4      52:54:00:00:00:03  999 B     2 KiB  3        61225>22
|  `- to other nodes  vx0                                        5 MiB     0 B    0
|- pv                 br1
|  |- vm3 eth0        tap3n1                  52:54:00:04:00:03  0 B       0 B    0
|  `- to other nodes  vx1                                        0 B       0 B    0
|- site               br2
|  `- vm3 eth1        tap3n2                  02:00:00:c0:80:03  0 B       0 B    0
|- own                br3     10.201.0.252
|  |- vm3 eth2        tap3n3  10.201.0.4      52:54:00:0c:00:03  0 B       0 B    0        61225>22
|  `- to other nodes  vx3                                        0 B       0 B    0
`- way out            uplink                                     10 B      20 B   0
"""


def test_a_cluster_is_drawn() -> None:
    assert draw.render_picture(draw.plan_picture(NODES, [])) == DRAWING


def test_what_is_missing_down_or_silent_is_shown() -> None:
    links = {name: one for name, one in NODES[0].links.items() if name not in ("tap0n0", "uplink")}
    links |= {name: replace(links[name], up=False) for name in ("tap1n0", "br0")}
    picture = draw.plan_picture([replace(NODES[0], links=links)], ["n2"])
    lines = draw.render_picture(picture).splitlines()
    assert lines[0] == "job 12: 4 VMs on 2 nodes" and lines[-1] == "no answer from: n2"
    assert [line.split()[-4:-1] for line in lines if "tap0n0" in line] == [["missing"] * 3]
    assert [line.split()[-4:-1] for line in lines if "tap1n0" in line] == [["down"] * 3]
    assert [line.split()[-1] for line in lines if "br0" in line] == ["down"]
    assert not any("uplink" in line for line in lines)


def test_partitions_are_drawn_with_the_functions_of_vms() -> None:
    given = {
        rank: tuple(FunctionFacts(name, f"0000:{place}1:00.{rank + 2}", 0, key, f"c2cc:{key:x}:0000:0{rank}01")
                    for place, (name, key) in enumerate((("ib", 0x2001), ("fast", 0x3000)), 8))
        for rank in (0, 1)
    }  # fmt: skip
    given[1] += (FunctionFacts("gpu:a100", "0000:3b:00.0"), FunctionFacts("wan", "0000:91:10.0", 1, None, None, "02::1", 9000))
    picture = draw.plan_picture([replace(NODES[0], node=replace(NODES[0].node, functions=given))], [])
    lines = draw.render_picture(picture).splitlines()
    first = lines.index("n1")
    assert [" ".join(line.split()) for line in lines[first + 1 : first + 12]] == [
        "|- fast key 0x3000",
        "| |- vm0 0000:91:00.2 c2cc:3000:0000:0001",
        "| |- vm1 0000:91:00.3 c2cc:3000:0000:0101",
        "|- gpu:a100",
        "| |- vm1 0000:3b:00.0",
        "|- ib key 0x2001",
        "| |- vm0 0000:81:00.2 c2cc:2001:0000:0001",
        "| |- vm1 0000:81:00.3 c2cc:2001:0000:0101",
        "|- wan",
        "| |- vm1 0000:91:10.0 02::1",
        "|- lan br0 10.200.255.253",
    ]
    assert picture["nodes"][0]["functions"][4] == {
        "network": "ib", "key": "0x2001", "vm": "vm1", "device": "0000:81:00.3", "guid": "c2cc:2001:0000:0101",
        "mac": None, "port": None,
    }  # fmt: skip


def test_the_same_is_there_as_json() -> None:
    picture = json.loads(json.dumps(draw.plan_picture(NODES, ["n3"])))
    assert picture["silent"] == ["n3"]
    assert picture["networks"][0] == {
        "name": "lan", "kind": "L3", "mtu": 1450, "vms": [0, 1, 2, 3], "vni": 12, "port": 24832, "addresses": "10.200.0.0/16",
        "gateway": "10.200.255.254", "domain": "vcluster", "outbound": True,
    }  # fmt: skip
    vm = picture["nodes"][1]["networks"][0]["vms"][1]
    assert vm == {
        "name": "vm3", "interface": "eth3", "address": "10.200.0.4", "mac": "52:54:00:00:00:03", "device": "tap3n0",
        "state": "up", "mtu": 1450, "received": 999, "sent": 2051, "dropped": 3,
        "forwards": [{"vm_port": 22, "host_port": 61225}],
    }  # fmt: skip
    assert "tunnel" not in picture["nodes"][0]["networks"][2]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1024, "1 KiB"),
        (999 * 1024, "999 KiB"),
        (5 << 30, "5 GiB"),
        (2**70, "1.05e+06 PiB"),
    ],
)
def test_amounts_are_short(number: int, text: str) -> None:
    assert draw._amount(number) == text

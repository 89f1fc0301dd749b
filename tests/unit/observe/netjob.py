"""What the nodes of a job send about its networks, for tests: four VMs on two nodes, vm3 with three networks more."""

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from pcocc_runtime.documents.node import NodeFacts
from pcocc_runtime.documents.node_answer import NetDevice, NodeAnswer, ReachReport
from pcocc_runtime.networks.kinds import BridgedNetwork, BuildableNetwork, EthernetNetwork, ReverseNat
from tests.fake_node import make_facts

LAN = EthernetNetwork("lan", reverse_nat=(ReverseNat(22, 61222, 61225),))
PV = EthernetNetwork("pv", layer="L2", mtu=8950)
SITE = BridgedNetwork("site", host_bridge="lan0", tap_prefix="site")
OWN = EthernetNetwork("own", int_network=IPv4Network("10.201.0.0/24"))
LAYOUT = {"n1": (0, 1), "n2": (2, 3)}
GOOD = ReachReport(0, (0, 1, 2, 3), frozenset(), frozenset(), frozenset(), (), False, "")


def device(mtu: int = 1450, received: int = 0, sent: int = 0, dropped: int = 0, up: bool = True) -> NetDevice:
    return NetDevice(mtu, up, received, sent, dropped)


def facts(number: int, lan: EthernetNetwork = LAN, job: int = 12) -> NodeFacts:
    """Return what root's helper leaves on n1 (vm0, vm1) or n2 (vm2, vm3); the LAN is everybody's, the others are vm3's alone."""
    networks: list[BuildableNetwork] = [lan, PV, SITE, OWN]
    sets = {"most": ("lan",), "last": ("pv", "site", "own", "lan")}
    return make_facts(sets, {"most": 3, "last": 1}, networks, LAYOUT, f"n{number}", job, first_port=61220 + 2 * number)


def answer(number: int, **changed: Any) -> NodeAnswer:
    """Return what n1 or n2 sends."""
    node = facts(number)
    links = {"lo": device(65536), "br0": device(), "vx0": device(received=5 << 20), "uplink": device(1500, 10, 20)}
    links |= {f"tap{rank}n0": device(received=2048 + rank, sent=999, dropped=rank) for rank in node.here.ranks}
    links |= {"br1": device(8950), "vx1": device(8950), "br2": device(1500), "br3": device(), "vx3": device()}
    links |= {"tap3n1": device(8950), "tap3n2": device(1500), "tap3n3": device()} if number == 2 else {}
    return replace(NodeAnswer(node, links, {}), **changed)

"""Ports on bridges of the host: what ip(8) says is there, which bridges cannot be used, and what ip(8) and bridge(8) are told."""

import json

import pytest

from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import host_bridges
from pcocc_runtime.networks.kinds import BridgedNetwork, Vlan
from pcocc_runtime.networks.plan import Bridged, plan_networks

VLANS = (Vlan(100, "native"), Vlan(101, "tagged"), Vlan(102, "untagged"))
STEP = BootStep(job=12, step=0, uid=1, gid=1, stepd=1, index=0, nodes=(NodeLayout("n1", (0,)),), sets=(("all", 1),))
BRIDGE = host_bridges.Bridge(1500, True, 1)


def plan(*vlans: Vlan) -> Bridged:
    (found,) = plan_networks(STEP, {"site": BridgedNetwork("site", "lan0", "site", 1500, vlans)}, {"all": ("site",)})
    assert isinstance(found, Bridged)
    return found


def link(name: str, mtu: int, **data: int) -> dict[str, object]:
    return {"ifname": name, "mtu": mtu, "linkinfo": {"info_kind": "bridge", "info_data": {"stp_state": 0, **data}}}


def test_bridges_are_as_ip_tells_them() -> None:
    text = json.dumps([link("lan0", 9000, vlan_filtering=1, vlan_default_pvid=7), {}, link("lan1", 1500, vlan_filtering=0)])
    assert host_bridges.parse_bridges(text) == {
        "lan0": host_bridges.Bridge(9000, True, 7),
        "lan1": host_bridges.Bridge(1500, False, 1),
    }
    assert host_bridges.parse_bridges("") == {}


def test_a_port_is_in_its_vlans_and_in_no_other() -> None:
    assert host_bridges.render_vlans(plan(*VLANS), BRIDGE).splitlines() == [
        "vlan del dev site00000c00 vid 1",
        "vlan add dev site00000c00 vid 100 pvid untagged",
        "vlan add dev site00000c00 vid 101",
        "vlan add dev site00000c00 vid 102 untagged",
    ]
    assert "del" not in host_bridges.render_vlans(plan(*VLANS), host_bridges.Bridge(1500, True, 0))


def test_a_port_without_vlans_has_the_bridges_default() -> None:
    assert host_bridges.render_vlans(plan(), BRIDGE) == ""
    assert list(host_bridges.render_bridge_port(plan(), "pcocc-12", host_bridges.Bridge(9000, False, 1))) == [
        "link add site00000c00 mtu 9000 type veth peer name pt0 mtu 9000 netns pcocc-12",
        "link set site00000c00 master lan0",
    ]


@pytest.mark.parametrize(
    ("bridge", "words"),
    [
        (None, "n1 has no bridge 'lan0'"),
        (host_bridges.Bridge(1500, False, 1), "does not filter VLANs"),
        (host_bridges.Bridge(1400, True, 1), "network 'site' has MTU 1500, but bridge 'lan0' of n1 only 1400"),
    ],
)
def test_a_bridge_that_does_not_serve_is_told(bridge: host_bridges.Bridge | None, words: str) -> None:
    with pytest.raises(NodeError, match=words) as caught:
        host_bridges.ensure_fit([plan(*VLANS)], {"lan0": bridge} if bridge else {}, "n1")
    assert caught.value.hint

"""dnsmasq's text for a network: what VMs are given and which names they find."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.networks import dnsmasq
from pcocc_runtime.networks.kinds import EthernetNetwork
from pcocc_runtime.networks.plan import plan_networks

ONE = EthernetNetwork("one")
OTHER = EthernetNetwork("other", int_network=IPv4Network("10.201.0.0/24"), domain_name="other.example")


def render(
    networks: tuple[EthernetNetwork, ...] = (ONE,),
    sets: tuple[tuple[str, ...], ...] = (("one",), ("one",)),
    ipv6: bool = True,
    each: int = 2,
) -> list[str]:
    """Return the lines for the first of the networks; two groups of VMs have them by `sets`, the node has the first VMs."""
    nodes = (NodeLayout("n1", (0, 1)), NodeLayout("n2", tuple(range(2, 2 * each))))
    step = BootStep(
        job=12, step=0, uid=1, gid=1, stepd=1, index=0, nodes=nodes, sets=(("a", each), ("b", each)),
    )  # fmt: skip
    specs = {network.name: network for network in networks}
    plans = plan_networks(step, specs, dict(zip("ab", sets, strict=True)), ipv6)
    return dnsmasq.render_dnsmasq(plans[0], plans[1:]).splitlines()


def test_the_nodes_own_vms_have_leases() -> None:
    assert [line for line in render() if line.startswith("dhcp-host=")] == [
        "dhcp-host=52:54:00:00:00:00,10.200.0.1,[fd70:636f:0:300::4:0],vm0,infinite",
        "dhcp-host=52:54:00:00:00:01,10.200.0.2,[fd70:636f:0:300::4:1],vm1,infinite",
    ]


def test_a_node_without_ipv6_speaks_of_none() -> None:
    lines = render(ipv6=False)
    assert "dhcp-host=52:54:00:00:00:00,10.200.0.1,vm0,infinite" in lines
    assert not [line for line in lines if "fd70" in line or "option6" in line or "enable-ra" in line]


def test_the_sites_settings_are_options() -> None:
    lines = render((replace(ONE, dns_search=("a.example", "b.example"), ntp_server=IPv4Address("192.0.2.123"), mtu=8950),))
    assert "dhcp-option=option:domain-search,vcluster,a.example,b.example" in lines
    assert "dhcp-option=option6:domain-search,vcluster,a.example,b.example" in lines
    assert "dhcp-option=option:ntp-server,192.0.2.123" in lines
    assert "dhcp-option=option:mtu,8950" in lines


LISTS = [
    (True, True),
    (False, False),
    ((IPv4Network("192.0.2.0/24"),), True),
    ((IPv4Network("198.51.100.0/24"), IPv4Network("192.0.2.53/32")), True),
    ((IPv4Network("198.51.100.0/24"),), False),
]


@pytest.mark.parametrize(("outbound", "passed_on"), LISTS)
def test_other_names_are_asked_outside_only_where_vms_may_go_there(
    outbound: bool | tuple[IPv4Network, ...], passed_on: bool
) -> None:
    lines = render((replace(ONE, dns_server=IPv4Address("192.0.2.53"), allow_outbound=outbound),))
    assert ("server=192.0.2.53" in lines) is passed_on
    assert "local=/vcluster/" in lines and "domain-needed" in lines


def test_each_vm_has_its_names() -> None:
    names = [line for line in render() if line.startswith(("host-record", "synth-domain"))]
    assert names[0] == "host-record=vm0.vcluster,vm0,10.200.0.1,fd70:636f:0:300::4:0"
    assert len(names) == 4


def test_names_of_a_large_cluster_are_ranges() -> None:
    names = [line for line in render(each=5000) if line.startswith(("host-record", "synth-domain"))]
    assert names == [
        "synth-domain=vcluster,10.200.0.1,10.200.39.16,vm*",
        "synth-domain=vcluster,fd70:636f:0:300::4:0/114,vm*",
    ]


def test_names_of_the_clusters_other_networks_are_known_too() -> None:
    names = [
        line.split(",")[0::2] for line in render((ONE, OTHER), (("one",), ("one", "other"))) if line.startswith("host-record")
    ]
    assert names == [[f"host-record=vm{rank}.vcluster", f"10.200.0.{rank + 1}"] for rank in range(4)] + [
        [f"host-record=vm{rank}.other.example", f"10.201.0.{rank + 1}"] for rank in (2, 3)
    ]


def test_in_one_domain_a_vm_has_the_address_of_the_network_it_is_asked_on() -> None:
    same = replace(OTHER, domain_name="vcluster")
    lines = [line for line in render((ONE, same), (("one",), ("other",))) if line.startswith("host-record")]
    assert [line.split(",")[2] for line in lines] == ["10.200.0.1", "10.200.0.2", "10.201.0.3", "10.201.0.4"]
    both = [line for line in render((ONE, same), (("one",), ("other", "one"))) if line.startswith("host-record")]
    assert [line.split(",")[2] for line in both] == ["10.200.0.1", "10.200.0.2", "10.200.0.3", "10.200.0.4"]

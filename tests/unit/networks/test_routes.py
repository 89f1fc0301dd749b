"""Routes between the nodes of an L3 network are a pure function of where the VMs are."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses

from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.networks import routes
from pcocc_runtime.networks.kinds import EthernetNetwork
from pcocc_runtime.networks.plan import Routed, plan_networks


def plan(*ranks: tuple[int, ...], index: int = 0) -> Routed:
    nodes = tuple(NodeLayout(f"n{number + 1}", own) for number, own in enumerate(ranks))
    count = sum(map(len, ranks))
    step = BootStep(job=12, step=0, uid=1, gid=1, stepd=1, index=index, nodes=nodes, sets=(("default", count),))
    (found,) = plan_networks(step, {"one": EthernetNetwork("one")}, {"default": ("one",)})
    assert isinstance(found, Routed)
    return found


def test_a_peer_is_a_neighbour_and_a_few_prefixes() -> None:
    assert routes.render_routes(plan((0, 1), (2, 3, 4))).splitlines() == [
        "route replace 10.200.0.0/16 dev br0 scope link src 10.200.255.253",
        "neigh replace 10.200.0.1 lladdr 52:54:00:00:00:00 dev br0 nud permanent",
        "neigh replace 10.200.0.2 lladdr 52:54:00:00:00:01 dev br0 nud permanent",
        "neigh replace 10.200.255.252 lladdr 02:70:63:00:00:01 dev vx0 nud permanent",
        "route replace 10.200.255.252 dev vx0 scope link src 10.200.255.253",
        "route replace 10.200.0.3/32 via 10.200.255.252 dev vx0 onlink src 10.200.255.253",
        "route replace 10.200.0.4/31 via 10.200.255.252 dev vx0 onlink src 10.200.255.253",
        "addr replace fe80::70:67ff:fe00:0/64 dev br0 nodad",
        "addr replace fd70:636f:0:300::1/64 dev br0 nodad",
        "neigh replace fe80::5054:ff:fe00:0 lladdr 52:54:00:00:00:00 dev br0 nud permanent",
        "neigh replace fe80::5054:ff:fe00:1 lladdr 52:54:00:00:00:01 dev br0 nud permanent",
        "neigh replace fe80::70:63ff:fe00:1 lladdr 02:70:63:00:00:01 dev vx0 nud permanent",
        "route replace fd70:636f:0:300::4:2/127 via fe80::70:63ff:fe00:1 dev vx0",
        "route replace fd70:636f:0:300::4:4/128 via fe80::70:63ff:fe00:1 dev vx0",
    ]


def test_a_peer_has_one_forwarding_entry() -> None:
    text = routes.render_forwarding(plan((0,), (1,), (2,), index=1), {"n1": "192.0.2.1", "n3": "192.0.2.3"})
    assert text.splitlines() == [
        "fdb replace 02:70:63:00:00:00 dev vx0 dst 192.0.2.1 self permanent",
        "fdb replace 02:70:63:00:00:02 dev vx0 dst 192.0.2.3 self permanent",
    ]


@given(st.sets(st.integers(1, 300), min_size=1))
def test_prefixes_cover_just_the_peers_vms(ranks: set[int]) -> None:
    lines = routes.render_routes(plan((0,), tuple(sorted(ranks)))).splitlines()
    found = [line.split()[2] for line in lines if " via " in line]
    base, base6 = IPv4Address("10.200.0.1"), IPv6Address("fd70:636f:0:300::4:0")
    assert [IPv4Network(one) for one in found if "." in one] == list(
        collapse_addresses(IPv4Network(base + rank) for rank in ranks)
    )
    assert [IPv6Network(one) for one in found if ":" in one] == list(
        collapse_addresses(IPv6Network(base6 + rank) for rank in ranks)
    )

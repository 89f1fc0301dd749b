"""What a job holds of a node, and the rules of its walls."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.documents.work import Forward, Held, Nat, decode_held, encode_line
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import nat, nft_guard, nft_inside, nft_outside
from pcocc_runtime.networks.kinds import EthernetNetwork, ReverseNat
from pcocc_runtime.networks.plan import NetworkPlan, Routed, find_ways_out, plan_networks, plan_port_wishes

INWARD = EthernetNetwork("inward", reverse_nat=(ReverseNat(22, 100, 103),))
SHUT = EthernetNetwork("shut", allow_outbound=False)


def plan(spec: EthernetNetwork, vms: int = 2) -> tuple[NetworkPlan, ...]:
    nodes = (NodeLayout("n1", tuple(range(vms))),)
    step = BootStep(job=12, step=0, uid=1, gid=1, stepd=1, index=0, nodes=nodes, sets=(("set", vms),))
    return plan_networks(step, {spec.name: spec}, {"set": (spec.name,)})


def choose(plans: tuple[NetworkPlan, ...], old: Nat | None, others: list[Nat], is_free: Callable[[int], bool]) -> Nat:
    return nat.choose_nat(plan_port_wishes(plans), old, others, is_free)


def free(_port: int) -> bool:
    return True


@pytest.mark.parametrize(
    ("spec", "needed"),
    [
        (SHUT, False),
        (EthernetNetwork("nowhere", allow_outbound=()), False),
        (EthernetNetwork("all"), True),
        (EthernetNetwork("some", allow_outbound=(IPv4Network("192.0.2.0/24"),)), True),
        (EthernetNetwork("in", allow_outbound=False, reverse_nat=INWARD.reverse_nat), True),
        (EthernetNetwork("flat", layer="L2"), False),
    ],
)
def test_a_way_out_is_made_only_where_something_may_pass(spec: EthernetNetwork, needed: bool) -> None:
    assert bool(find_ways_out(plan(spec))) == needed


def test_slots_and_ports_are_the_first_that_nobody_holds() -> None:
    others = [Nat(0, (Forward(0, 0, 22, 100),)), Nat(2)]
    found = choose(plan(INWARD), None, others, lambda port: port != 101)
    assert found == Nat(1, (Forward(0, 0, 22, 102), Forward(0, 1, 22, 103)))


def test_what_a_job_held_it_keeps() -> None:
    old = Nat(7, (Forward(0, 1, 22, 100),))
    found = choose(plan(INWARD), old, [Nat(0)], free)
    assert found == Nat(7, (Forward(0, 0, 22, 101), Forward(0, 1, 22, 100)))
    assert choose(plan(INWARD), found, [Nat(0)], lambda _port: False) == found


def test_two_ranges_for_one_port_of_a_vm_give_two_ports() -> None:
    spec = EthernetNetwork("two", reverse_nat=(ReverseNat(22, 100, 103), ReverseNat(22, 100, 110)))
    found = choose(plan(spec), None, [], free)
    assert found and [one.host_port for one in found.forwards] == [100, 101, 102, 103]
    assert choose(plan(spec), found, [], lambda _port: False) == found


def test_a_range_used_up_says_which() -> None:
    with pytest.raises(NodeError, match="no port from 100 to 103 is free on this node, for reverse-nat of network 'inward'"):
        choose(plan(INWARD), None, [], lambda port: port < 101)


def test_slots_used_up_say_so() -> None:
    with pytest.raises(NodeError, match="8192 jobs"):
        choose(plan(INWARD), None, [Nat(slot) for slot in range(8192)], free)


def test_what_is_held_is_read_back() -> None:
    held = Held(Nat(3, (Forward(0, 1, 22, 103),)), "tcg", "why")
    assert decode_held(encode_line(held)) == held and decode_held(encode_line(Held(None, "kvm", ""))) == Held(None, "kvm", "")


@given(st.integers(0, naming.UPLINK_SLOTS - 1), st.integers(0, naming.UPLINK_SLOTS - 1))
def test_addresses_of_two_slots_differ(one: int, other: int) -> None:
    first, second = addressing.uplink_addresses(one), addressing.uplink_addresses(other)
    assert bool(set(first) & set(second)) == (one == other)
    assert all(address in naming.UPLINK_NETWORK for address in first)


@given(st.integers(1, naming.MAX_JOB_ID), st.integers(1, naming.MAX_JOB_ID))
def test_names_of_two_jobs_in_the_hosts_namespace_differ(one: int, other: int) -> None:
    assert (naming.uplink_name(one) == naming.uplink_name(other)) == (one == other)
    assert (naming.host_table(one) == naming.host_table(other)) == (one == other)
    assert len(naming.uplink_name(one)) <= 15
    assert naming.host_table(one) != nft_guard.TUNNEL_TABLE


def test_the_guard_covers_every_port_a_tunnel_can_have() -> None:
    first, last = map(int, naming.TUNNEL_PORTS.split("-"))
    jobs, networks = (1, naming.MAX_JOB_ID), (0, naming.MAX_NETWORKS - 1)
    assert {addressing.vxlan_port(job, network) for job in jobs for network in networks} >= {first, last}
    assert all(first <= addressing.vxlan_port(job, network) <= last for job in jobs for network in networks)


def rules(text: str) -> int:
    return sum(1 for line in text.splitlines() if line.startswith("  ") and "elements" not in line)


def test_rules_do_not_grow_with_vms_or_peers() -> None:
    few, many = plan(SHUT), plan(SHUT, 64)
    assert rules(nft_inside.render_firewall(12, few, None)) == rules(nft_inside.render_firewall(12, many, None))
    one, thousand = (
        nft_outside.render_host_table(12, few, [f"192.0.{n >> 8}.{n & 255}" for n in range(count)], None)
        for count in (1, 1023)
    )
    assert rules(one) == rules(thousand)


def test_a_link_local_address_derives_from_the_mac() -> None:
    assert str(addressing.link_local_address("52:54:00:00:00:01")) == "fe80::5054:ff:fe00:1"


def test_a_vm_has_its_own_address_of_ip6_and_the_gateway_answers_at_its() -> None:
    one = plan(SHUT, 1)[0]
    assert isinstance(one, Routed)
    six = replace(one, network6=IPv6Network("fd00::/64"), taps=(one.taps[0]._replace(address6="fd00::5"),))
    text = nft_inside.render_firewall(12, (six,), None)
    assert '"tap0n0" . 52:54:00:00:00:00 . fd00::5' in text and '"tap0n0" . 0xfd000000000000000000000000000005' in text
    assert f'iifname "br0" ip6 daddr {six.gateway6} meta l4proto {{ tcp, udp }} th dport 53 accept' in text


def test_destinations_that_overlap_are_one() -> None:
    spec = EthernetNetwork("some", allow_outbound=(IPv4Network("192.0.2.0/24"), IPv4Network("192.0.2.128/25")))
    assert "ip daddr { 192.0.2.0/24 } accept" in nft_inside.render_firewall(12, plan(spec), Nat(0))

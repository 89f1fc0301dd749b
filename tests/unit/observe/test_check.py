"""What is broken where, judged from what the nodes have found."""

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from pcocc_runtime.documents.node_answer import NetDevice
from pcocc_runtime.findings import Finding, failed
from pcocc_runtime.observe.check import evaluate, plan_findings, render_findings
from tests.unit.observe import netjob

TARGET = "192.0.2.1"


def judge(
    first: dict[str, Any], second: dict[str, Any], target: str | None = TARGET, silent: tuple[str, ...] = ()
) -> list[Finding]:
    """Return the findings for two nodes, given what differs from all being well in the probe of each."""
    nodes = []
    for number, changed in ((1, first), (2, second)):
        found = {name: frozenset(value) if name in ("lost", "narrow", "silent") else value for name, value in changed.items()}
        nodes.append(netjob.answer(number, reports=(replace(netjob.GOOD, **found),), dhcp=True))
    return evaluate(nodes, silent, target)


def said(found: list[Finding], level: str) -> list[str]:
    return [one.text for one in found if one.level == level]


def test_all_is_well() -> None:
    found = judge({}, {})
    assert said(found, "ok") == [
        "lan: its devices are up on 2 nodes",
        "lan: 4 VMs answer from 2 nodes, packets of 1450 bytes too",
        "lan: DNS knows VMs by name and by address on 2 nodes",
        "lan: 192.0.2.1, outside, answers 2 nodes",
        "pv: its devices are up on 2 nodes",
        "site: its devices are up on 2 nodes",
        "own: its devices are up on 2 nodes",
    ]
    assert said(found, "FAILED") == [] and failed(found) == 0
    assert said(found, "note") == [
        "pv: pcocc gives no addresses on it, so only its devices were checked",
        "site: pcocc gives no addresses on it, so only its devices were checked",
        "a DHCP server listens on every node; only root could ask it, but VMs that answer have got their addresses from it",
    ]
    assert render_findings(12, found).endswith("\njob 12: no failure\n")


@pytest.mark.parametrize(
    ("first", "second", "failures"),
    [
        ({"lost": [3]}, {"lost": [3]}, ["lan: vm3 on n2 (10.200.0.4) answers none of the nodes"]),
        ({"lost": [2, 3]}, {}, ["lan: n1 does not reach vm[2-3] on n2; other nodes do"]),
        ({"lost": [2, 3]}, {"lost": [0, 1]},
         ["lan: n1 does not reach vm[2-3] on n2; other nodes do", "lan: n2 does not reach vm[0-1] on n1; other nodes do"]),
        ({"lost": [2, 3]}, {"lost": [3]},
         ["lan: vm3 on n2 (10.200.0.4) answers none of the nodes", "lan: n1 does not reach vm2 on n2; other nodes do"]),
        ({"narrow": [2, 3]}, {},
         ["lan: packets of 1450 bytes do not get from n1 to vm[2-3] on n2; small ones do"]),
        ({"narrow": [0]}, {"narrow": [0]},
         ["lan: packets of 1450 bytes do not get from n1 to vm0 on n1; small ones do",
          "lan: packets of 1450 bytes do not get from n2 to vm0 on n1; small ones do"]),
        ({"deaf": True}, {}, ["lan: the DNS server at 10.200.255.254 does not answer on n1"]),
        ({}, {"wrong_names": ("vm2.vcluster is not known, but should be 10.200.0.3",)},
         ["lan: on n2, vm2.vcluster is not known, but should be 10.200.0.3"]),
        ({"outbound": "192.0.2.1 does not answer"}, {}, ["lan: on n1, 192.0.2.1 does not answer"]),
    ],
)  # fmt: skip
def test_a_failure_is_told_once_where_it_is(first: dict[str, Any], second: dict[str, Any], failures: list[str]) -> None:
    found = judge(first, second)
    assert said(found, "FAILED") == failures
    text = render_findings(12, found)
    assert text.endswith(f"\njob 12: {len(failures)} failure{'s' if len(failures) > 1 else ''}\n")
    assert plan_findings(12, found)["ok"] is False


def hint(found: list[Finding]) -> str:
    return next(one.hint for one in found if one.level == "FAILED") or ""


def test_hints_tell_a_closed_port_from_a_narrow_network() -> None:
    assert hint(judge({"lost": [2, 3]}, {})) == "UDP port 24832 must be open between n1 and n2"
    assert hint(judge({"lost": [2]}, {})) == ""
    assert "between n1 and n2 must pass 1500 bytes" in hint(judge({"narrow": [2]}, {}))
    assert "the interface in the VM must have MTU 1450" in hint(judge({"narrow": [0]}, {}))
    assert "/run/pcocc/12/vm3/console.log" in hint(judge({"lost": [3]}, {"lost": [3]}))


def test_a_vm_that_only_answers_ssh_is_noted() -> None:
    found = judge({"silent": [3]}, {"silent": [1, 3]})
    assert said(found, "FAILED") == []
    assert "lan: vm[1,3] answered ssh but no ping, so large packets were not tried" in said(found, "note")


def test_many_wrong_names_are_counted() -> None:
    found = said(judge({"wrong_names": tuple(f"x{number}" for number in range(20))}, {}), "FAILED")
    assert len(found) == 6 and found[-1] == "lan: on n1, 15 more names are wrong"


def test_a_silent_node_is_a_failure() -> None:
    assert said(judge({}, {}, silent=("n3",)), "FAILED") == ["n3 does not answer"]


def test_a_part_of_a_large_cluster_is_said_to_be_one() -> None:
    text = "lan: 3 VMs answer from 2 nodes (2 asked from each), packets of 1450 bytes too"
    assert text in said(judge({"tried": (0, 1)}, {"tried": (1, 2)}), "ok")


@pytest.mark.parametrize(
    ("outbound", "target", "note"),
    [
        (False, TARGET, "lan: allow-outbound is none, so nothing outside was tried"),
        ((IPv4Network("198.51.100.0/24"),), TARGET, "lan: 192.0.2.1 is not in allow-outbound, so it was not tried"),
        (True, None, "lan: pcocc knows no machine outside that it could try"),
    ],
)
def test_what_is_outside_is_tried_only_where_it_may_be_reached(
    outbound: bool | tuple[IPv4Network, ...], target: str | None, note: str
) -> None:
    lan, untried = replace(netjob.LAN, allow_outbound=outbound), replace(netjob.GOOD, outbound=None)
    nodes = [netjob.answer(number, node=netjob.facts(number, lan), reports=(untried,)) for number in (1, 2)]
    found = evaluate(nodes, [], target)
    assert said(found, "FAILED") == [] and note in said(found, "note")


@pytest.mark.parametrize(
    ("device", "changed", "failure"),
    [
        ("tap3n0", None, "lan: tap3n0 (vm3) is missing on n2"),
        ("vx0", netjob.device(up=False), "lan: vx0 (its tunnel) is down on n2"),
        ("br1", netjob.device(1500), "pv: br1 (its bridge) has MTU 1500, not 8950 on n2"),
        ("tap3n2", netjob.device(1400), "site: tap3n2 (vm3) has MTU 1400, not 1500 on n2"),
    ],
)
def test_devices_are_looked_at(device: str, changed: NetDevice | None, failure: str) -> None:
    well, other = netjob.answer(1), netjob.answer(2)
    links = {name: one for name, one in other.links.items() if name != device} | ({device: changed} if changed else {})
    assert said(evaluate([well, replace(other, links=links)], [], None), "FAILED") == [failure]


def test_a_network_on_a_bridge_of_the_site_has_no_tunnel_between_two_nodes() -> None:
    nodes = [netjob.answer(number) for number in (1, 2)]
    assert not any("vx2" in one.links for one in nodes)
    assert [one for one in evaluate(nodes, [], None) if one.text.startswith("site: ")] == [
        Finding("ok", "site: its devices are up on 2 nodes"),
        Finding("note", "site: pcocc gives no addresses on it, so only its devices were checked"),
    ]


def test_what_could_not_be_asked_and_a_missing_dhcp_server_are_failures() -> None:
    nodes = [netjob.answer(1, trouble="ping cannot be used"), netjob.answer(2, dhcp=False)]
    assert said(evaluate(nodes, [], None), "FAILED") == [
        "n1: its part could not be checked: ping cannot be used",
        "no DHCP server listens on n2",
    ]

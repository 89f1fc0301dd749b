"""What nodes send about networks arrives whole, or is refused in a sentence."""

import copy
import json
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.errors import NodeError
from pcocc_runtime.observe import draw
from pcocc_runtime.observe.check import evaluate, render_findings
from pcocc_runtime.observe.facts import Device, choose_targets, decode_answers, encode_answer, parse_links, parse_node
from pcocc_runtime.observe.ps_text import find_vms, render_vms
from tests.unit.observe import netjob

trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(st.lists(st.dictionaries(st.text(), trees), max_size=4), st.randoms())
def test_what_tasks_send_arrives_however_their_lines_are_mixed(sent: list[dict[str, Any]], chance: Any) -> None:
    queues = [list(encode_answer(task, tree)) for task, tree in enumerate(sent)]
    lines = ["srun: a word of its own", "pcocc-network x y", ""]
    assert all(len(line) < 1000 for queue in queues for line in queue)
    while any(queues):
        lines.append(chance.choice([queue for queue in queues if queue]).pop(0))
    assert decode_answers(lines) == sent


def test_a_long_tree_takes_several_lines_and_is_not_read_in_part() -> None:
    tree = {"noise": [str(hash((1, number))) for number in range(1000)]}
    lines = list(encode_answer(3, tree))
    assert len(lines) > 5
    assert decode_answers(lines) == [tree]
    assert decode_answers(lines[:-1]) == []
    with pytest.raises(NodeError, match="cannot be read"):
        decode_answers(lines[:2] + lines[3:])


def test_facts_are_parsed() -> None:
    node = parse_node(netjob.node(2))
    assert (node.job, node.name, node.index) == (12, "n2", 1)
    assert node.nodes == (("n1", (0, 1)), ("n2", (2, 3)))
    lan, pv, site = node.networks
    assert (lan.addresses, lan.members, lan.ranks, lan.outbound) == (IPv4Network("10.200.0.0/16"), (0, 1, 2, 3), (2, 3), True)
    assert (pv.kind, pv.members, pv.addresses, pv.address_of(3)) == ("L2", (3,), None, "")
    assert (site.kind, site.mtu) == ("bridged", 1500)
    assert lan.address_of(3) == "10.200.0.4"
    assert [node.interface_of(3, index) for index in range(3)] == ["eth0", "eth1", "eth2"]
    tree = netjob.node(2)
    tree["node"]["networks"][0]["members"] = [[0, 2]]
    assert [parse_node(tree).interface_of(3, index) for index in (1, 2)] == ["eth0", "eth1"]
    assert node.links["tap3n0"] == Device(1450, True, 2051, 999, 3)
    assert node.forwards == ((2, 22, 61224), (3, 22, 61225))


def test_a_node_that_failed_says_why() -> None:
    with pytest.raises(NodeError, match="n1: the VMs of job 12 are not running on this node"):
        parse_node({"error": "n1: the VMs of job 12 are not running on this node"})


def without(key: str) -> dict[str, Any]:
    tree = netjob.node(1)
    del tree["node"][key]
    return tree


@pytest.mark.parametrize(
    "tree",
    [
        None, 5, [], "error", {}, {"node": 5, "links": {}}, *(without(key) for key in ("job", "node", "nodes", "networks")),
        netjob.node(1, links={"tap0n0": 7}), netjob.node(1, probes=[{**netjob.GOOD, "tried": "x"}]),
        netjob.node(1, probes=[{**netjob.GOOD, "wrong_names": [7]}]),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(tree: Any) -> None:
    with pytest.raises(NodeError, match="what a node sent about the networks cannot be read"):
        parse_node(tree)


ODD = [None, True, -1, 1 << 18, 1 << 40, 10**400, 1e400, float("nan"), "", "x", "9" * 5000, "255.255.255.255/32", [], [7], {}, {"x": 7}]


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something is in a tree."""
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from places(tree[key], (*path, key))


FORGED = netjob.node(1, probes=[netjob.GOOD], dhcp=True, vms={"0": "up", "1": "booting"})
FORGED["node"]["interfaces"] = {"0": [{"network": 0}]}


@pytest.mark.parametrize("path", [*places(FORGED)], ids=lambda path: ".".join(map(str, path)))
def test_whatever_the_jobs_user_forges_is_shown_or_refused(path: tuple[Any, ...]) -> None:
    for odd in ODD:
        tree = copy.deepcopy(FORGED)
        inner = tree
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = odd
        [sent] = decode_answers(encode_answer(0, tree))
        try:
            node = parse_node(sent)
        except NodeError:
            continue
        picture = draw.plan_picture([node], [])
        draw.render_picture(picture)
        render_findings(node.job, evaluate([node], [], None))
        render_vms(find_vms("12", [node]))
        json.dumps(picture)


def test_nothing_that_is_sent_reaches_a_terminal_as_it_is() -> None:
    tree = netjob.node(1, trouble="\x1b[31mred")
    tree["node"]["networks"][0]["domain"] = "a\nb\x07"
    node = parse_node(tree)
    assert node.trouble == "?[31mred" and node.networks[0].domain == "a b?"


def test_devices_are_read_as_ip_shows_them() -> None:
    stats = '"stats64":{"rx":{"bytes":5,"dropped":1,"errors":2},"tx":{"bytes":7,"dropped":3,"errors":4}}'
    text = (
        f'[{{"ifname":"tap0n0","mtu":1450,"flags":["BROADCAST","UP"],{stats}}},{{"ifname":"br0","mtu":1450,"flags":[],{stats}}}]'
    )
    assert parse_links(text) == {
        "tap0n0": {"mtu": 1450, "up": True, "received": 5, "sent": 7, "dropped": 10},
        "br0": {"mtu": 1450, "up": False, "received": 5, "sent": 7, "dropped": 10},
    }


def test_a_node_of_a_large_cluster_asks_its_own_vms_and_some_others() -> None:
    assert choose_targets(range(10), [3], 10) == tuple(range(10))
    chosen = choose_targets(range(10240), range(100, 110), 256)
    assert len(chosen) == 256 and set(range(100, 110)) <= set(chosen)
    assert chosen[0] == 0 and chosen[-1] > 10000 and chosen == tuple(sorted(chosen))

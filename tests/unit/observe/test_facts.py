"""What nodes send about networks arrives complete, or is refused with a sentence."""

import base64
import copy
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.documents.node_answer import (
    Failure,
    NetDevice,
    NodeAnswer,
    decode_node_answers,
    encode_node_answer,
)
from pcocc_runtime.observe import draw
from pcocc_runtime.observe.check import evaluate, render_findings
from pcocc_runtime.observe.facts import choose_asked, parse_links
from pcocc_runtime.observe.ps_text import plan_vms, render_vms
from tests.unit.observe import netjob

ANSWERS = [
    netjob.answer(1, states={0: "up", 1: "ended: it was closed"}, reports=(netjob.GOOD,), dhcp=True),
    netjob.answer(
        2, reports=(replace(netjob.GOOD, lost=frozenset({3, 1}), wrong_names=("x is not known",), outbound=None),),
        dhcp=False,
    ),
    netjob.answer(2, trouble="ping cannot be used"), Failure("n1: the VMs of job 12 do not run on this node"),
]


@pytest.mark.thorough
@given(st.lists(st.sampled_from(ANSWERS), max_size=4), st.randoms())
def test_what_tasks_send_arrives_however_their_lines_are_mixed(sent: list[NodeAnswer | Failure], chance: Any) -> None:
    queues = [list(encode_node_answer(task, one)) for task, one in enumerate(sent)]
    lines = ["srun: a word of its own", "pcocc-network x y", ""]
    assert all(len(line) < 1000 for queue in queues for line in queue)
    while any(queues):
        lines.append(chance.choice([queue for queue in queues if queue]).pop(0))
    assert decode_node_answers(lines) == sent


def test_a_long_answer_takes_several_lines_and_is_not_read_in_part() -> None:
    noise = {f"x{hash((1, number))}": netjob.device() for number in range(1000)}
    sent = netjob.answer(1, links=noise)
    lines = list(encode_node_answer(3, sent))
    assert len(lines) > 5
    assert decode_node_answers(lines) == [sent]
    assert decode_node_answers(lines[:-1]) == []
    many = [f"pcocc-network {'9' * 5000} {word}" for word in ("x", ".")]
    assert decode_node_answers(many) == [], "more digits than int() takes"
    assert refused(lines[:2] + lines[3:])


def refused(lines: list[str]) -> str:
    """Return the sentence for an answer that cannot be read."""
    [found] = decode_node_answers(lines)
    assert isinstance(found, Failure)
    assert (
        found.sentence.startswith("a node's answer about the networks cannot be read: ")
        and "the same version" in found.sentence
    )
    return found.sentence


def test_one_damaged_answer_spoils_none_of_the_others() -> None:
    whole, other = (list(encode_node_answer(task, netjob.answer(task))) for task in (1, 2))
    [broken, found] = decode_node_answers([*whole[1:], *other])
    assert isinstance(broken, Failure) and found == netjob.answer(2)


def unpack(sent: NodeAnswer | Failure) -> Any:
    """Return the JSON that is sent."""
    *lines, _end = encode_node_answer(0, sent)
    return json.loads(zlib.decompress(base64.b64decode("".join(line.split()[2] for line in lines))))


def pack(tree: Any) -> list[str]:
    """Return the lines of somebody who sends other JSON."""
    return pack_text(json.dumps(tree))


def pack_text(text: str) -> list[str]:
    return [f"pcocc-network 0 {base64.b64encode(zlib.compress(text.encode())).decode()}", "pcocc-network 0 ."]


def test_what_a_forger_sends_is_made_like_the_real_thing() -> None:
    for sent in ANSWERS:
        assert decode_node_answers(pack(unpack(sent))) == [sent]


def forged(path: tuple[Any, ...], value: Any) -> list[str]:
    """Return the lines of an answer of which one place is another, or missing when `value` is KeyError."""
    tree = copy.deepcopy(FORGED)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    if value is KeyError:
        del inner[path[-1]]
    return pack(tree)


FORGED = unpack(ANSWERS[0])
NODE = ("content", "node")


def test_an_answer_is_not_read_deeper_than_there_is_stack() -> None:
    for depth in (100, 600, 10_000):
        assert refused(pack_text('{"version":1,"content":' + "[" * depth + "]" * depth + "}"))


@pytest.mark.parametrize(
    "tree",
    [None, 5, [], "error", {}, {"version": 1}, {"version": 1, "content": {}}, {"version": 1, "content": {"kind": "x"}}],
)
def test_what_is_no_answer_is_refused(tree: Any) -> None:
    refused(pack(tree))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("version",), 2, "it has version 2, and this pcocc reads version 1"),
        ((*NODE, "job"), KeyError, "content.node.job is missing"),
        ((*NODE, "nodes"), KeyError, "content.node.nodes is missing"),
        ((*NODE, "surprise"), 1, "content.node.surprise is unknown"),
        ((*NODE, "networks"), 5, "content.node.networks is a number, where a list is expected"),
        ((*NODE, "networks", 0, "kind"), "bridged", "content.node.networks.0.addresses is unknown"),
        ((*NODE, "networks", 0, "kind"), "L4", "content.node.networks.0 is not of a type that it may have"),
        ((*NODE, "networks", 0, "addresses"), "10.200.0.0/30", "10.200.0.0/30 is too small for the job"),
        ((*NODE, "networks", 0, "members"), [[0, 1 << 40]], "it is not clear which VMs are on network lan"),
        ((*NODE, "networks", 1, "index"), 0, "its networks are not numbered as those of a job"),
        ((*NODE, "nodes", 0, 1), [0, 0], "its nodes' VMs are not numbered as those of a job"),
        ((*NODE, "name"), "n3", "it is not one of the job's nodes"),
        ((*NODE, "interfaces", "0", 0, 0), 9, "its interfaces do not match its VMs and networks"),
        ((*NODE, "reach", 0, 0), "10.9.0.0/16", "it is not clear by which network a VM is reached"),
        ((*NODE, "forwards", 0, 0), 2, "a forwarded port leads to none of its VMs"),
        ((*NODE, "accel"), "magic", "magic is not an accelerator"),
        (("content", "links", "tap0n0"), 7, "content.links.tap0n0 is a number, where a mapping is expected"),
        (("content", "reports", 0, "tried"), "x", "content.reports.0.tried is text, where a list is expected"),
        (("content", "reports", 0, "wrong_names"), [7], "content.reports.0.wrong_names.0 is a number, where text is expected"),
        (("content", "reports", 0, "tried"), [4], "it names VMs or networks that the job does not have"),
        (("content", "reports", 0, "network"), 1, "it names VMs or networks that the job does not have"),
        (("content", "states", "x"), "up", "content.states.x is not one of its numbers"),
        (("content", "states", "01"), "up", "content.states.01 is not one of its numbers"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(path: tuple[Any, ...], value: Any, said: str) -> None:
    assert f": {said};" in refused(forged(path, value))


ODD = [
    None, True, -1, 1 << 18, 1 << 40, 10**400, 1e400, float("nan"), "", "x", "9" * 5000, "255.255.255.255/32", [], [7],
    {}, {"x": 7},
]


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something is in a tree."""
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from places(tree[key], (*path, key))


@pytest.mark.parametrize("path", [*places(FORGED)], ids=lambda path: ".".join(map(str, path)))
def test_whatever_the_jobs_user_forges_is_shown_or_refused(path: tuple[Any, ...]) -> None:
    for odd in [*ODD, KeyError]:
        [found] = decode_node_answers(forged(path, odd))
        if isinstance(found, Failure):
            assert found.sentence
            continue
        picture = draw.plan_picture([found], [])
        draw.render_picture(picture)
        render_findings(found.node.job, evaluate([found], [], None))
        render_vms(plan_vms("12", [found]))
        json.dumps(picture)


def test_nothing_that_is_sent_reaches_a_terminal_as_it_is() -> None:
    tree = unpack(netjob.answer(2, trouble="\x1b[31mred", states={2: "booting\x1b[2J"}, links={"a\nb": netjob.device()}))
    tree["content"]["node"]["networks"][0]["domain"] = "a\nb\x07" + "x" * 600
    [found] = decode_node_answers(pack(tree))
    assert isinstance(found, NodeAnswer)
    assert (found.trouble, found.states, [*found.links]) == ("?[31mred", {2: "booting?[2J"}, ["a b"])
    assert found.node.networks[0].domain == "a b?" + "x" * 496
    [failed] = decode_node_answers(encode_node_answer(0, Failure("n1\x1b[2J: " + "x" * 600)))
    assert failed == Failure("n1?[2J: " + "x" * 492)


def test_devices_are_read_as_ip_shows_them() -> None:
    stats = '"stats64":{"rx":{"bytes":5,"dropped":1,"errors":2},"tx":{"bytes":7,"dropped":3,"errors":4}}'
    text = (
        f'[{{"ifname":"tap0n0","mtu":1450,"flags":["BROADCAST","UP"],{stats}}},{{"ifname":"br0","mtu":1450,"flags":[],{stats}}}]'
    )
    assert parse_links(text) == {"tap0n0": NetDevice(1450, True, 5, 7, 10), "br0": NetDevice(1450, False, 5, 7, 10)}


def test_a_node_of_a_large_cluster_asks_its_own_vms_and_some_others() -> None:
    assert choose_asked(range(10), [3], 10) == tuple(range(10))
    chosen = choose_asked(range(10240), range(100, 110), 256)
    assert len(chosen) == 256 and set(range(100, 110)) <= set(chosen)
    assert chosen[0] == 0 and chosen[-1] > 10000 and chosen == tuple(sorted(chosen))

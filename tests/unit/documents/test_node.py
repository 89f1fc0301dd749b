"""node.json: whatever root's helper writes is read as it was, and anything else is refused in one sentence."""

import json
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.node import (
    MAX_NODE,
    BridgedFacts,
    FunctionFacts,
    ImageCache,
    NodeFacts,
    RoutedFacts,
    SegmentFacts,
    decode_node,
    encode_node,
)
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.kinds import BridgedNetwork, BuildableNetwork, EthernetNetwork, ReverseNat
from pcocc_runtime.site.site import Site
from tests.fake_node import make_facts

NETWORKS: tuple[BuildableNetwork, ...] = (
    EthernetNetwork("lan", reverse_nat=(ReverseNat(22, 60222, 60299),), allow_outbound=(IPv4Network("192.0.2.0/24"),)),
    EthernetNetwork("flat", layer="L2", mtu=8950),
    BridgedNetwork("site", host_bridge="lan0", tap_prefix="site"),
    EthernetNetwork("shut", int_network=IPv4Network("10.201.0.0/24"), allow_outbound=False, dns_search=("a.example",)),
)
NAMES = [one.name for one in NETWORKS]
sets = st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from(NAMES), unique=True).map(tuple), min_size=1)
caches = st.none() | st.builds(ImageCache, st.integers(1, 1 << 50), st.just("/cache") | st.just("/var/cache/pcocc"))


@st.composite
def nodes(draw: st.DrawFn) -> NodeFacts:
    known = draw(sets)
    counts = {name: draw(st.integers(1, 4)) for name in known}
    vms, ranks = sum(counts.values()), draw(st.permutations(range(sum(counts.values()))))
    cut = draw(st.integers(1, vms))
    layout = {"n1": tuple(sorted(ranks[:cut])), **({"n2": tuple(sorted(ranks[cut:]))} if cut < vms else {})}
    site = Site(boot_timeout=draw(st.integers(1, 86400)), image_cache=draw(caches))
    return make_facts(known, counts, NETWORKS, layout, draw(st.sampled_from([*layout])), site=site, ipv6=draw(st.booleans()))


@given(nodes())
def test_what_root_writes_is_read_as_it_was(node: NodeFacts) -> None:
    assert decode_node(encode_node(node), node.job) == node


def test_functions_are_of_the_nodes_own_vms() -> None:
    one = FunctionFacts("ib", "0000:81:00.2", 1, 0x2001, "c2cc:2001:0000:0101")
    other = FunctionFacts("gpu:a100", "0000:3b:00.0")
    node = replace(make_facts({"all": tuple(NAMES)}, {"all": 2}, NETWORKS), functions={1: (one, other), 0: ()})
    assert decode_node(encode_node(node), node.job) == node
    with pytest.raises(ValueError, match="a virtual function is of none of its VMs"):
        replace(node, functions={2: ()})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["ib", 0x2001, "0000:81:00.2", "c2cc:1"], FunctionFacts("ib", "0000:81:00.2", None, 0x2001, "c2cc:1")),
        (["ib", "0000:81:00.2", 1, 0x2001, "c2cc:1"], FunctionFacts("ib", "0000:81:00.2", 1, 0x2001, "c2cc:1")),
        (["gpu:a100", "0000:3b:00.0", None, None, None], FunctionFacts("gpu:a100", "0000:3b:00.0")),
    ],
)
def test_what_former_versions_wrote_of_functions_is_read(written: list[object], meant: FunctionFacts) -> None:
    node = make_facts({"all": tuple(NAMES)}, {"all": 2}, NETWORKS)
    tree = json.loads(encode_node(node)) | {"functions": {"1": [written]}}
    assert decode_node(json.dumps(tree).encode(), node.job) == replace(node, functions={1: (meant,)})


@pytest.mark.parametrize("written", [["ib", "x"], ["ib", 1, 2, 3], "ib", {"source": "ib"}, {"source": "ib", "address": 3}, 4])
def test_functions_of_no_known_form_are_refused(written: object) -> None:
    node = make_facts({"all": tuple(NAMES)}, {"all": 2}, NETWORKS)
    tree = json.loads(encode_node(node)) | {"functions": {"1": [written]}}
    with pytest.raises(NodeError, match=r"functions\.1\.0"):
        decode_node(json.dumps(tree).encode(), node.job)


def test_what_was_written_before_there_were_functions_is_read() -> None:
    node = make_facts({"all": tuple(NAMES)}, {"all": 2}, NETWORKS)
    tree = json.loads(encode_node(node))
    del tree["functions"]
    assert decode_node(json.dumps(tree).encode(), node.job) == node


def test_each_network_is_of_its_kind() -> None:
    node = make_facts({"all": tuple(NAMES)}, {"all": 2}, NETWORKS)
    assert [type(one) for one in node.networks] == [RoutedFacts, SegmentFacts, BridgedFacts, RoutedFacts]
    assert [one["kind"] for one in json.loads(encode_node(node))["networks"]] == ["L3", "L2", "bridged", "L3"]
    assert node.interfaces[1][2].mac == addressing.bridged_mac(12, 1, 2)


NODE = make_facts({"all": tuple(NAMES), "few": ("shut",)}, {"all": 3, "few": 1}, NETWORKS, {"n1": (0, 1), "n2": (2, 3)}, "n2")


def test_a_node_knows_its_own_part() -> None:
    lan, _flat, site, shut = NODE.networks
    assert (NODE.index, NODE.here.ranks, NODE.vm_count) == (1, (2, 3), 4)
    assert (lan.ranks, NODE.ranks_on(lan), NODE.ranks_on(site), NODE.ranks_on(shut)) == ((0, 1, 2), (2,), (2,), (2, 3))
    assert NODE.reach == (("10.200.0.0/16", ((0, 2),)), ("10.201.0.0/24", ((3, 3),)))
    assert [(one.rank, one.vm_port) for one in NODE.forwards] == [(2, 22)]


def refused(data: bytes | None, job: int = 12) -> str:
    with pytest.raises(NodeError) as caught:
        decode_node(data, job)
    assert caught.value.hint
    return caught.value.message


def test_a_file_that_is_missing_damaged_or_anothers_is_told_in_a_sentence() -> None:
    data = encode_node(NODE)
    assert refused(None) == "the VMs of job 12 are not running on this node: there is no /run/pcocc/12/node.json"
    begin = "/run/pcocc/12/node.json cannot be read: "
    assert refused(b"").startswith(begin) and refused(data[:-1]).startswith(begin) and refused(b"\xff\xfe").startswith(begin)
    assert refused(b"[" * 100_000) == f"{begin}its lists are nested too deep"
    assert refused(b"{}") == refused(b"[]") == f"{begin}it is not a document of pcocc's"
    assert refused(data.ljust(MAX_NODE + 1)) == f"{begin}it is longer than 64 MiB"
    assert refused(data.replace(b'"version":1', b'"version":2')) == f"{begin}it has version 2, and this pcocc reads version 1"
    assert refused(data, 13) == "/run/pcocc/13/node.json cannot be read: it belongs to job 12"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("boot_timeout", "5", "boot_timeout is text, where a number is expected"),
        ("boot_timeout", True, "boot_timeout is true or false, where a number is expected"),
        ("boot_timeout", 1.0, "boot_timeout is a fraction, where a number is expected"),
        ("boot_timeout", -1, "boot_timeout is not between 0 and 18446744073709551615"),
        ("boot_timeout", None, "boot_timeout is null, where a number is expected"),
        ("boot_timeout", KeyError, "boot_timeout is missing"),
        ("layer", "L3", "layer is unknown"),
        ("cache", {"size": 1, "path": "/x"}, "cache.path is unknown"),
        ("forwards", [[2, 22]], "forwards.0 has 2 items, where 3 are expected"),
        ("forwards", [[2, 22, 70000]], "a forwarded port leads to none of its VMs"),
        ("interfaces", {"2": []}, "its interfaces do not match its VMs and networks"),
        ("reach", [["10.200.0.0/16", [[2, 1]]]], "it is not clear by which network a VM is reached"),
    ],
)
def test_what_root_does_not_write_is_refused_by_its_place(key: str, value: Any, said: str) -> None:
    tree = {**json.loads(encode_node(NODE)), key: value}
    if value is KeyError:
        del tree[key]
    assert refused(json.dumps(tree).encode()) == f"/run/pcocc/12/node.json cannot be read: {said}"


def test_the_largest_job_fits() -> None:
    ranks = tuple(range(naming.MAX_RANK + 1))
    wide = EthernetNetwork("wide", int_network=IPv4Network("10.0.0.0/8"))
    node = make_facts({"all": ("wide",)}, {"all": len(ranks)}, [wide], {"n1": ranks[:512], "n2": ranks[512:]}, "n1")
    data = encode_node(node)
    assert len(data) < 2 << 20 and decode_node(data, 12) == node

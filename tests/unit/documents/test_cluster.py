"""The document of a frozen cluster is read as it was written, and a forged one is refused."""

import base64
import json
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcocc_runtime.documents.boot_step import parse_boot_step
from pcocc_runtime.documents.cluster import (
    Cluster,
    Drive,
    Group,
    Mount,
    decode_cluster,
    encode_cluster,
    sets_text,
)
from pcocc_runtime.errors import RequestError

words = st.text(max_size=20)
mounts = st.builds(Mount, words, words, st.sampled_from(["9p", "virtiofs"]), st.booleans())
drives = st.builds(Drive, words, words, words, st.none() | words)
groups = st.builds(
    Group, words, st.integers(1, 10**9), image=st.none() | words, resource_set=words, cpus=st.integers(1, 64),
    user_data=st.none() | words, mounts=st.lists(mounts, max_size=3).map(tuple),
    persistent=st.lists(drives, max_size=2).map(tuple), custom_args=st.lists(words, max_size=3).map(tuple),
)  # fmt: skip
clusters = st.lists(groups, min_size=1, max_size=4).map(lambda found: Cluster(tuple(found)))


def pack(tree: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(tree).encode())).decode()


@pytest.mark.thorough
@given(clusters)
def test_what_is_encoded_is_decoded(cluster: Cluster) -> None:
    text = encode_cluster(cluster)
    assert decode_cluster(text) == cluster
    assert text.isascii() and not set(text) & set(" \n\"'\\")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: base64.b64encode(zlib.compress(data)).decode()))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="damaged"):
        decode_cluster(text)


GROUP = {"template": "t", "count": 1}


@pytest.mark.parametrize(
    "tree",
    [
        [], {}, {"version": 2, "groups": [GROUP]}, {"version": 1, "groups": []}, {"version": 1, "groups": {"a": 1}},
        {"version": 1, "groups": [{"template": "t"}]}, {"version": 1, "groups": [{**GROUP, "count": 0}]},
        {"version": 1, "groups": [{**GROUP, "count": True}]}, {"version": 1, "groups": [{**GROUP, "cpus": "1"}]},
        {"version": 1, "groups": [{**GROUP, "surprise": 1}]}, {"version": 1, "groups": [{**GROUP, "mounts": ["x"]}]},
        {"version": 1, "groups": [{**GROUP, "custom_args": [1]}]}, {"version": 1, "groups": [{**GROUP, "count": 1.0}]},
    ],
)  # fmt: skip
def test_a_tree_of_another_shape_is_refused(tree: object) -> None:
    with pytest.raises(RequestError, match="damaged"):
        decode_cluster(pack(tree))


def test_a_document_that_unpacks_to_gigabytes_is_refused() -> None:
    bomb = base64.b64encode(zlib.compress(b" " * (64 << 20), 9)).decode()
    with pytest.raises(RequestError, match="too large"):
        decode_cluster(bomb)


def test_a_document_no_environment_can_carry_is_refused_when_made() -> None:
    noise = random.Random(1).randbytes(100_000).hex()
    with pytest.raises(RequestError, match="at most 120 KiB are possible"):
        encode_cluster(Cluster((Group("t", 1, user_data=noise), Group("u", 1, user_data=noise[::-1]))))


def test_ranks_run_through_the_groups() -> None:
    cluster = Cluster((Group("a", 2), Group("b", 1, resource_set="gpu")))
    assert cluster.vm_count == 3
    assert [cluster.group_of(rank).template for rank in range(3)] == ["a", "a", "b"]
    for rank in (-1, 3):
        with pytest.raises(RequestError, match=r"no vm-?\d in a cluster of 3"):
            cluster.group_of(rank)


def test_resource_sets_are_told_in_rank_order() -> None:
    cluster = Cluster((Group("a", 2), Group("b", 1), Group("c", 1, resource_set="gpu"), Group("d", 2)))
    assert sets_text(cluster) == "default:3,gpu:1,default:2"


def test_devices_of_templates_go_with_their_sets() -> None:
    two = (("gpu:a100", 1), ("nic", 2))
    cluster = Cluster((Group("a", 2), Group("b", 1, devices=two), Group("c", 2, devices=two), Group("d", 1)))
    assert sets_text(cluster) == "default:2,default:3:gpu:a100:1:nic::2,default:1"
    text = f"job 1\nstep 0\nuid 1\ngid 1\nstepd 1\nindex 0\nlayout n1 0-5\nsets {sets_text(cluster)}\nend\n"
    step = parse_boot_step(text.splitlines())
    assert step.sets == (("default", 2), ("default", 3), ("default", 1)) and [*map(step.set_of, range(6))] == ["default"] * 6
    assert [step.devices_of(rank) for rank in range(6)] == [(), (), two, two, two, ()]

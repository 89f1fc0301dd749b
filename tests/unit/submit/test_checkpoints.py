"""`--pcocc-checkpoint`: what a value means, and what cannot be stored."""

from dataclasses import replace

import pytest

from pcocc_runtime.documents.cluster import Checkpoints, Cluster, Group, Mount
from pcocc_runtime.documents.typed_options import TypedOptions
from pcocc_runtime.errors import RequestError
from pcocc_runtime.networks.kinds import BridgedNetwork, EthernetNetwork
from pcocc_runtime.site.resource_sets import ResourceSet
from pcocc_runtime.submit.checkpoints import ensure_storable, parse_checkpoints
from pcocc_runtime.submit.request import find_restart, parse_request


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("d", Checkpoints("d", at_end=True)),
        ("/a,b/c=d,every=30", Checkpoints("/a,b/c=d", 1800)),
        ("d,every=1:30", Checkpoints("d", 90)),
        ("d,every=2:00:05,at-end", Checkpoints("d", 7205, True)),
        ("d,at-end=0:45,every=1-2", Checkpoints("d", 93600, True, 45)),
        ("d,every=1-2:03", Checkpoints("d", 93780)),
        ("d,every=1-2:03:04", Checkpoints("d", 93784)),
        ("every=5,at-end", Checkpoints("every=5", at_end=True)),
    ],
)
def test_a_value_says_where_and_when(text: str, wanted: Checkpoints) -> None:
    assert parse_checkpoints(text) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no directory"),
        (",every=5", "names no directory"),
        ("d,", "has the unknown option ''"),
        ("d,at-start", "has the unknown option 'at-start'"),
        ("d,Every=1h,at-end", "has the unknown option 'Every=1h'"),
        ("d,at_end", "has the unknown option 'at_end'"),
        ("d,every", "says no time after 'every'"),
        ("d,every=", "says no time after 'every'"),
        ("d,at-end=", "says no time after 'at-end'"),
        ("d,every=5,every=6", "has 'every' twice"),
        ("d,every=x", "'x' in --pcocc-checkpoint=d,every=x is not a time"),
        ("d,every=1:2:3:4", "is not a time"),
        ("d,every=-5", "is not a time"),
        ("d,every=\u0661", "is not a time"),
        ("d,every=0", "is not between 10 s and ten years"),
        ("d,at-end=99999-0", "is not between"),
    ],
)
def test_a_wrong_value_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(RequestError) as found:
        parse_checkpoints(text)
    assert said in found.value.message and found.value.hint


def test_it_belongs_to_a_job_with_vms() -> None:
    assert parse_request(TypedOptions("tiny", checkpoint="d")).checkpoints == "d"
    assert parse_request(TypedOptions("tiny", checkpoint="")).checkpoints == "", "which is refused then"
    wanted = find_restart(TypedOptions(restart="from", checkpoint="d"))
    assert wanted is not None and wanted.checkpoints == "d"
    with pytest.raises(RequestError, match="--pcocc-checkpoint needs --pcocc-template"):
        parse_request(TypedOptions(checkpoint="d"))


def test_what_cannot_be_stored_is_told_before() -> None:
    group = Group("tiny", 2)
    one = ResourceSet("default", ("private",))
    networks = {"private": EthernetNetwork("private"), "lan": BridgedNetwork("lan", host_bridge="br0", tap_prefix="t")}
    ensure_storable(Cluster((replace(group, mounts=(Mount("a", "/a"),)),)), [one], networks)
    for cluster, sets, said in (
        (Cluster((replace(group, mounts=(Mount("a", "/a", "virtiofs"),)),)), [one], "have /a over virtiofs"),
        (Cluster((replace(group, devices=(("gpu", 1),)),)), [one], "VMs of template 'tiny' have devices"),
        (Cluster((group,)), [replace(one, devices=(("gpu", 1),))], "VMs of resource set 'default' have devices"),
        (Cluster((group,)), [replace(one, networks=("lan",))], "network 'lan', of type bridged-ethernet, cannot"),
    ):
        with pytest.raises(RequestError) as found:
            ensure_storable(cluster, sets, networks)
        assert said in found.value.message

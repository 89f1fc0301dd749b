"""A real opensm with the file that `pcocc config partitions` prints: which keys ports have, and which ports reach each other."""

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from pcocc_runtime.addressing import partition_guid
from pcocc_runtime.networks.kinds import InfinibandNetwork
from pcocc_runtime.networks.opensm import find_faults, render_opensm
from tests.netns.subnet import HOSTS, SM, Subnet
from tests.waiting import wait_closely

POOL = InfinibandNetwork("fabric", "mlx5_0", 0x2000, 0x2003, max_vms=101)
FILE = "".join(f"{line}\n" for line in render_opensm([POOL]))
CLOSED = "Default=0x7fff, ipoib : ALL=limited, SELF=full ;\n"
OPEN = "Default=0x7fff, ipoib : ALL=full ;\n"
CLUSTERS = (0x2000, 0x2003)
VMS = {
    f"c{cluster}v{rank}": partition_guid(POOL.guid_prefix, key, rank, 0)
    for cluster, key in enumerate(CLUSTERS)
    for rank in (0, 100)
}
DEFAULT, FULL = 0x7FFF, 0x8000


@pytest.fixture
def subnet() -> Iterator[Subnet]:
    with tempfile.TemporaryDirectory() as directory:
        found = Subnet(Path(directory), VMS)
        try:
            yield found
        finally:
            found.close()


def key_of(name: str) -> int:
    return CLUSTERS[int(name[1])]


@pytest.mark.parametrize("site", [CLOSED, OPEN, ""])
def test_a_vm_has_its_clusters_key_and_is_limited_in_the_default(subnet: Subnet, site: str) -> None:
    subnet.opensm(site + FILE)
    assert "ERR" not in subnet.log()
    assert {name: subnet.keys(name) for name in VMS} == {name: [key_of(name) | FULL, DEFAULT] for name in VMS}
    hosts = DEFAULT | FULL if site == OPEN else DEFAULT
    assert [subnet.keys(name) for name in (*HOSTS, SM)] == [[hosts], [hosts], [DEFAULT | FULL]]


def test_there_are_ways_within_a_cluster_and_nowhere_else(subnet: Subnet) -> None:
    subnet.opensm(CLOSED + FILE)
    ports = (*VMS, *HOSTS)
    found = {
        (one, other) for one, other in product(ports, ports) if one != other and subnet.reaches(one, other)
    }
    assert found == {
        (one, other) for one, other in product(VMS, VMS) if one != other and key_of(one) == key_of(other)
    }


def test_a_function_that_gets_a_guid_is_in_its_partition_without_a_word_to_the_subnet_manager(
    subnet: Subnet,
) -> None:
    subnet.opensm(CLOSED + FILE)
    subnet.give("c0v100", partition_guid(POOL.guid_prefix, 0x2003, 7, 0))
    wait_closely(lambda: subnet.keys("c0v100") == [0x2003 | FULL, DEFAULT], subnet.log)
    assert subnet.reaches("c0v100", "c1v0") and not subnet.reaches("c0v100", "c0v0")
    subnet.take("c0v100")
    wait_closely(lambda: not subnet.reaches("c1v0", "c0v100"), subnet.log)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("0xc2cc200000000001", "0xzzcc200000000001"),
        (" : 0xc2cc200000000001", " 0xc2cc200000000001"),
        ("0xc2cc200000006301 ;", "0xc2cc200000006301"),
    ],
)
def test_for_a_fault_that_our_check_finds_opensm_opens_the_fabric(
    subnet: Subnet, right: str, wrong: str
) -> None:
    text = CLOSED + FILE.replace(right, wrong, 1)
    assert [*find_faults(text.splitlines(), [POOL], "f")]
    subnet.opensm(text)
    assert {name: subnet.keys(name) for name in (*VMS, *HOSTS)} == {
        name: [DEFAULT | FULL] for name in (*VMS, *HOSTS)
    }

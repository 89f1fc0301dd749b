"""In which partitions a node's VMs are, and what ip(8) is told; tests/netns/test_functions.py runs root's helper."""

import io
from dataclasses import replace

import pytest

from pcocc_runtime.addressing import host_guid
from pcocc_runtime.documents.boot_step import BootStep, parse_boot_step
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import Function, Given, PhysicalFunction
from pcocc_runtime.networks.kinds import HostInfiniband, InfinibandNetwork
from pcocc_runtime.networks.partitions import (
    Partition,
    plan_host_ports,
    plan_partitions,
    plan_ports,
    render_guid,
    render_joining,
    render_leaving,
)

IB = InfinibandNetwork("ib", "mlx5_0", 0x2000, 0x2003)
DEVICE = PhysicalFunction(
    "ib0",
    tuple(
        Function(number, f"0000:81:00.{number + 1}", "vfio-pci", str(21 + number), ()) for number in range(4)
    ),
)
OTHER = replace(IB, name="other", min_pkey=0x3000, max_pkey=0x3003)
REQUEST = """job 12
step 1
uid 2001
gid 2001
stepd 999
index 1
layout n1 0
layout n2 1-3
sets {sets}
account a
partition p
qos q
licenses {licences}
gres n1 nic:mlx5:1(IDX:3)
gres n2 {gres}
end
"""


def step(
    sets: str = "hpc:2,plain:1,hpc:1",
    licences: str = "pkey2001:1,matlab:1",
    gres: str = "gpu:1(IDX:0),nic:mlx5:2(IDX:1,3)",
) -> BootStep:
    return parse_boot_step(io.StringIO(REQUEST.format(sets=sets, licences=licences, gres=gres)))


GIVEN = (Given("ib", 1, DEVICE.functions[1]), Given("other", 1, DEVICE.functions[0]), Given("ib", 3, DEVICE.functions[3]))


def plan(one: BootStep, *networks: InfinibandNetwork) -> tuple[Partition, ...]:
    return plan_partitions(one, networks or (IB,), {"mlx5_0": DEVICE}, GIVEN)


def test_a_network_has_the_key_of_the_job_and_the_functions_of_its_vms() -> None:
    [found] = plan(step())
    assert found.key == 0x2001 and {rank: one.number for rank, one in found.functions.items()} == {1: 1, 3: 3}
    ports = plan_ports([found])
    assert {pair: render_guid(one.guids[1]) for pair, one in ports.items()} == {
        ("ib", 1): "c2cc:2001:0000:0101", ("ib", 3): "c2cc:2001:0000:0301",
    }


def test_two_networks_have_two_keys() -> None:
    found = plan(step(licences="pkey2001,pkey3000"), IB, OTHER)
    assert [(one.key, [*one.functions]) for one in found] == [(0x2001, [1, 3]), (0x3000, [1])]


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        ("matlab:1", "the job has no licence of a key of network 'ib', but must have exactly one"),
        ("pkey2001,pkey2002", "the job has several licences of keys of network 'ib', but must have exactly one"),
        ("pkey2004", "the job has no licence of a key of network 'ib'"),
    ],
)
def test_a_job_without_one_key_is_told(licences: str, said: str) -> None:
    with pytest.raises(NodeError) as told:
        plan(step(licences=licences))
    assert str(told.value).startswith(said)


def test_a_cluster_is_no_larger_than_its_partition() -> None:
    with pytest.raises(NodeError, match="the job has 4 VMs, but a cluster on network 'ib' can have only 3"):
        plan(step(), replace(IB, max_vms=3))


JOIN = """link set dev ib0 vf 1 state disable
link set dev ib0 vf 1 node_guid c2:cc:20:01:00:00:01:00
link set dev ib0 vf 1 port_guid c2:cc:20:01:00:00:01:01
link set dev ib0 vf 1 state auto
link set dev ib0 vf 3 state disable
link set dev ib0 vf 3 node_guid c2:cc:20:01:00:00:03:00
link set dev ib0 vf 3 port_guid c2:cc:20:01:00:00:03:01
link set dev ib0 vf 3 state auto
"""


def test_a_function_is_down_while_its_guids_change() -> None:
    ports = plan_ports(plan(step())).values()
    assert render_joining(ports) == JOIN
    none = "ff:ff:ff:ff:ff:ff:ff:ff"
    assert render_leaving(ports) == "".join(
        f"link set dev ib0 vf {number} {what}\n"
        for number in (1, 3)
        for what in ("state disable", f"node_guid {none}", f"port_guid {none}")
    )


def test_a_function_in_the_nodes_partitions_has_a_guid_made_of_its_device() -> None:
    host = HostInfiniband("node", "mlx5_0")
    given = (Given("node", 0, DEVICE.functions[2]), Given("node", 1, DEVICE.functions[3]), *GIVEN)
    ports = plan_host_ports([host], {"mlx5_0": DEVICE._replace(guid=0xEC0D_9A03_00F1_2AF4)}, given)
    assert {pair: (one.number, *map(render_guid, one.guids)) for pair, one in ports.items()} == {
        ("node", 0): (2, "ee0d:9a03:06f1:2af4", "ee0d:9a03:07f1:2af4"),
        ("node", 1): (3, "ee0d:9a03:08f1:2af4", "ee0d:9a03:09f1:2af4"),
    }


def test_no_two_functions_of_a_fabric_have_a_guid_in_common() -> None:
    devices = [0xEC0D_9A03_00F1_2AF4 + number for number in range(4)]  # of one card, and of the next
    found = [host_guid(guid, number, port) for guid in devices for number in range(127) for port in (0, 1)]
    assert len({*found, *devices}) == len(found) + 4

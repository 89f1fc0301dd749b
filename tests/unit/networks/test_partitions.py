"""Which functions VMs get on a node, and what ip(8) is told of them; tests/netns/test_functions.py has root's helper do it."""

import io
import json
from dataclasses import replace

import pytest

from pcocc_runtime.documents.boot_step import BootStep, parse_boot_step
from pcocc_runtime.documents.node import FunctionFacts
from pcocc_runtime.documents.work import Act
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.kinds import InfinibandNetwork
from pcocc_runtime.networks.partitions import (
    Function,
    Hca,
    Partition,
    describe_functions,
    find_partitions,
    parse_gres,
    plan_partition_acts,
    plan_partitions,
    render_joining,
    render_leaving,
)

IB = InfinibandNetwork("ib", "mlx5_0", 0x2000, 0x2003)
DEVICE = Hca(
    "ib0",
    tuple(
        Function(number, f"0000:81:00.{number + 1}", "vfio-pci", str(21 + number), ()) for number in range(4)
    ),
)
SETS = {"hpc": ("ib",), "plain": (), "two": ("ib", "other")}
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


def plan(one: BootStep, device: Hca = DEVICE, *networks: InfinibandNetwork) -> tuple[Partition, ...]:
    return plan_partitions(one, find_partitions(one, networks or (IB,), SETS), {"mlx5_0": device})


@pytest.mark.parametrize(
    ("text", "name", "places"),
    [
        ("nic:mlx5:2(IDX:0-1)", "nic", [0, 1]),
        ("nic:mlx5:2(IDX:0-1)", "nic:mlx5", [0, 1]),
        ("gpu:a100:1(IDX:3),nic:mlx5:3(IDX:0,2-3)", "nic", [0, 2, 3]),
        ("nic:efa:1(IDX:5),nic:mlx5:1(IDX:0)", "nic:mlx5", [0]),
        ("nicx:1(IDX:0),mynic:1(IDX:1)", "nic", []),
        ("nic:2(CNT:2)", "nic", []),
        ("nic:2", "nic", []),
        ("", "nic", []),
    ],
)
def test_places_of_a_gres(text: str, name: str, places: list[int]) -> None:
    assert parse_gres(text, name) == places


def test_each_vm_of_a_node_has_a_function_of_what_slurm_gave() -> None:
    [found] = plan(step())
    assert found.key == 0x2001 and {rank: one.number for rank, one in found.functions.items()} == {1: 1, 3: 3}
    assert describe_functions([found]) == {
        1: (FunctionFacts("ib", 0x2001, "0000:81:00.2", "c2cc:2001:0000:0101"),),
        3: (FunctionFacts("ib", 0x2001, "0000:81:00.4", "c2cc:2001:0000:0301"),),
    }


def test_two_networks_share_what_slurm_gave() -> None:
    one = step("plain:1,two:1,plain:1,two:1", "pkey2001,pkey3000", "nic:4(IDX:0-3)")
    found = plan(one, DEVICE, IB, OTHER)
    numbers = [{rank: each.number for rank, each in one.functions.items()} for one in found]
    assert numbers == [{1: 0, 3: 1}, {1: 2, 3: 3}] and [one.key for one in found] == [0x2001, 0x3000]


def test_a_step_without_such_networks_has_no_partition() -> None:
    assert find_partitions(step("plain:4"), (IB,), SETS) == {}
    [found] = plan(step("hpc:1,plain:3", gres=""))
    assert found.functions == {}


BOUND = DEVICE._replace(
    functions=(DEVICE.functions[0], DEVICE.functions[1]._replace(driver="mlx5_core"), *DEVICE.functions[2:])
)
SHARED = DEVICE._replace(
    functions=(
        DEVICE.functions[0],
        DEVICE.functions[1]._replace(others=("0000:82:00.0",)),
        *DEVICE.functions[2:],
    )
)


@pytest.mark.parametrize(
    ("one", "device", "said"),
    [
        (
            step(licences="matlab:1"),
            DEVICE,
            "the job has no licence of a key of network 'ib', but must have exactly one",
        ),
        (
            step(licences="pkey2001,pkey2002"),
            DEVICE,
            "the job has several licences of keys of network 'ib', but must have exactly one",
        ),
        (step(licences="pkey2004"), DEVICE, "the job has no licence of a key of network 'ib'"),
        (step(gres="nic:1(IDX:1)"), DEVICE, "the job has 1 devices of GRES nic on n2, but its VMs there need 2"),
        (step(gres="nic:2"), DEVICE, "the job has 0 devices of GRES nic on n2, but its VMs there need 2"),
        (step(gres="nic:2(IDX:3-4)"), DEVICE, "Slurm gives the job function number 5 of mlx5_0 of n2, which has only 4"),
        (
            step(),
            BOUND,
            "function 1 of mlx5_0 on n2 (0000:81:00.2) is bound to mlx5_core instead of vfio-pci",
        ),
        (
            step(),
            SHARED,
            "function 1 of mlx5_0 on n2 (0000:81:00.2) is in one IOMMU group with 0000:82:00.0, and cannot be given",
        ),
    ],
)
def test_what_is_not_as_it_must_be_is_told(one: BootStep, device: Hca, said: str) -> None:
    with pytest.raises(NodeError) as told:
        plan(one, device)
    assert str(told.value).startswith(said)


def test_a_cluster_is_no_larger_than_its_partition() -> None:
    with pytest.raises(NodeError, match="the job has 4 VMs, but a cluster on network 'ib' can have only 3"):
        plan(step(), DEVICE, replace(IB, max_vms=3))


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
    found = plan(step())
    assert render_joining(found) == JOIN
    none = "ff:ff:ff:ff:ff:ff:ff:ff"
    assert render_leaving(found) == "".join(
        f"link set dev ib0 vf {number} {what}\n"
        for number in (1, 3)
        for what in ("state disable", f"node_guid {none}", f"port_guid {none}")
    )


def test_what_undoes_it_is_kept_first_and_ip_runs_no_more_often() -> None:
    acts = [
        Act("nft", False, "x"),
        Act("ip", True, "inside\n"),
        Act("ip", False, "outside\n"),
        Act("ip", False, "more\n"),
    ]
    given, *rest = plan_partition_acts(plan(step()), 2001, acts)
    assert (given.kind, json.loads(given.text)) == (
        "devices",
        {"uid": 2001, "devices": ["/dev/vfio/22", "/dev/vfio/24"], "ip": render_leaving(plan(step()))},
    )
    assert rest == [acts[0], acts[1], Act("ip", False, JOIN + "outside\n"), acts[3]]
    assert plan_partition_acts(plan(step()), 2001, acts[:2])[1:] == (Act("ip", False, JOIN), *acts[:2])
    assert plan_partition_acts((), 2001, acts) == tuple(acts)

"""Which functions of a node its VMs get, of those that Slurm gave the job; tests/netns/test_functions.py runs root's helper."""

import hypothesis
import hypothesis.strategies as st
import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import (
    Function,
    Stock,
    Wish,
    find_twice,
    parse_gres,
    parse_virtual,
    plan_given,
    render_gres,
)


def functions(bus: int, count: int, first_group: int) -> tuple[Function, ...]:
    return tuple(
        Function(number, f"0000:{bus:02x}:00.{number}", "vfio-pci", str(first_group + number), (), number // 2)
        for number in range(count)
    )


HCA = Stock("mlx5_0", "nic", functions(0x81, 4, 20))
A100, H100 = Stock("gpu:a100", "gpu:a100", functions(0x3B, 4, 30)), Stock("gpu:h100", "gpu:h100", functions(0xAF, 2, 40))
DISKS = Stock("network disks", "nvme", functions(0x5E, 2, 50))
STOCKS = (HCA, A100, H100, DISKS)


def wish(stock: Stock, *ranks: int, source: str = "") -> Wish:
    return Wish(source or stock.name, stock.name, stock.gres, ranks)


def given(told: str, *wishes: Wish, stocks: tuple[Stock, ...] = STOCKS) -> list[tuple[int, str]]:
    return [(one.rank, one.function.address[5:]) for one in plan_given(wishes, stocks, told, "n2")]


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


def test_each_vm_of_a_node_has_functions_of_what_slurm_gave() -> None:
    assert given("gpu:a100:1(IDX:0),nic:2(IDX:1,3)", wish(HCA, 1, 3)) == [(1, "81:00.1"), (3, "81:00.3")]
    assert given("gpu:a100:4(IDX:0-3)", wish(A100, 5, 5, 6, 6)) == [
        (5, "3b:00.0"), (5, "3b:00.1"), (6, "3b:00.2"), (6, "3b:00.3"),
    ]


def test_types_of_a_gres_are_counted_together() -> None:
    told = "gpu:a100:1(IDX:2),gpu:h100:2(IDX:4-5),nvme:1(IDX:1)"
    assert given(told, wish(A100, 0), wish(H100, 0, 1), wish(DISKS, 1)) == [
        (0, "3b:00.2"), (0, "af:00.0"), (1, "af:00.1"), (1, "5e:00.1"),
    ]


def test_two_networks_on_a_device_share_what_slurm_gave() -> None:
    assert given("nic:4(IDX:0-3)", wish(HCA, 1, 3, source="ib"), wish(HCA, 1, 3, source="other")) == [
        (1, "81:00.0"), (3, "81:00.2"), (1, "81:00.1"), (3, "81:00.3"),
    ]


@pytest.mark.parametrize(
    ("told", "wishes", "had"),
    [
        ("gpu:a100:4(IDX:0-3),nic:2(IDX:0,2)", (wish(A100, 0, 0, 1, 1), wish(HCA, 0, 1)),
         [(0, "3b:00.0"), (0, "3b:00.1"), (1, "3b:00.2"), (1, "3b:00.3"), (0, "81:00.0"), (1, "81:00.2")]),
        ("gpu:a100:2(IDX:1,2),nic:2(IDX:2-3)", (wish(A100, 4, 6), wish(HCA, 4, 6)),
         [(4, "3b:00.2"), (6, "3b:00.1"), (4, "81:00.2"), (6, "81:00.3")]),
        ("gpu:a100:3(IDX:1-3)", (wish(A100, 0, 0, 1),), [(0, "3b:00.2"), (0, "3b:00.3"), (1, "3b:00.1")]),
        ("gpu:a100:3(IDX:0,2-3)", (wish(A100, 0, 1, 1),), [(0, "3b:00.0"), (1, "3b:00.2"), (1, "3b:00.3")]),
        ("gpu:a100:3(IDX:0,2-3)", (wish(A100, 0, 0, 0),), [(0, "3b:00.0"), (0, "3b:00.2"), (0, "3b:00.3")]),
    ],
)
def test_a_vms_devices_are_of_one_numa_node_where_that_can_be(
    told: str, wishes: tuple[Wish, ...], had: list[tuple[int, str]]
) -> None:
    assert given(told, *wishes) == had


@hypothesis.given(st.data())
def test_every_vm_gets_as_many_as_it_wants_and_nobody_what_another_has(data: st.DataObject) -> None:
    wishes = [
        wish(one, *sorted(data.draw(st.lists(st.integers(0, 3), max_size=len(one.functions) // times))), source=f"{one.name}{n}")
        for one, times in ((HCA, 2), (A100, 1), (DISKS, 1)) for n in range(times)
    ]  # fmt: skip
    told = ",".join(f"{one.gres}:9(IDX:0-{len(one.functions) - 1})" for one in (HCA, A100, DISKS))
    found = plan_given(wishes, STOCKS, told, "n2")
    assert len({one.function for one in found}) == len(found)
    assert [(one.source, one.rank) for one in found] == [(one.source, rank) for one in wishes for rank in one.ranks]


def test_two_devices_with_one_gres_are_told_apart() -> None:
    second = Stock("mlx5_1", "nic", functions(0x82, 2, 60))
    told, stocks = "nic:3(IDX:0,4-5)", (HCA, second)
    assert given(told, wish(HCA, 0), wish(second, 0, 1), stocks=stocks) == [(0, "81:00.0"), (0, "82:00.0"), (1, "82:00.1")]
    with pytest.raises(NodeError, match="the job has 1 devices of GRES nic on n2, but its VMs there need 2"):
        given(told, wish(HCA, 0, 1), stocks=stocks)


def changed(**fields: object) -> tuple[Stock, ...]:
    return (HCA._replace(functions=(HCA.functions[0], HCA.functions[1]._replace(**fields), *HCA.functions[2:])),)


@pytest.mark.parametrize(
    ("told", "one", "stocks", "said"),
    [
        ("nic:1(IDX:1)", wish(HCA, 1, 3), STOCKS, "the job has 1 devices of GRES nic on n2, but its VMs there need 2"),
        ("nic:2", wish(HCA, 1, 3), STOCKS, "the job has 0 devices of GRES nic on n2, but its VMs there need 2"),
        ("", wish(A100, 1), STOCKS, "the job has 0 devices of GRES gpu:a100 on n2, but its VMs there need 1"),
        ("nic:2(IDX:3-4)", wish(HCA, 1, 3), STOCKS, "Slurm gives the job function number 5 of mlx5_0 on n2, but there are"),
        ("gpu:a100:1(IDX:4)", wish(A100, 1), STOCKS, "Slurm gives the job 0000:af:00.0 on n2 as gpu:a100, but it is gpu:h100"),
        (
            "nic:1(IDX:1)", wish(HCA, 1), changed(driver="mlx5_core"),
            "function 1 of mlx5_0 on n2 (0000:81:00.1) is bound to mlx5_core instead of vfio-pci",
        ),
        (
            "nic:1(IDX:1)", wish(HCA, 1), changed(answers=False),
            "function 1 of mlx5_0 on n2 (0000:81:00.1) does not answer any more: it has not come back from a reset",
        ),
        (
            "nic:1(IDX:1)", wish(HCA, 1), changed(others=("0000:82:00.0", "0000:82:00.1")),
            "function 1 of mlx5_0 on n2 (0000:81:00.1) shares its IOMMU group with 0000:82:00.0, 0000:82:00.1, and cannot",
        ),
    ],
)
def test_what_is_not_as_it_must_be_is_told(told: str, one: Wish, stocks: tuple[Stock, ...], said: str) -> None:
    with pytest.raises(NodeError) as error:
        given(told, one, stocks=stocks)
    assert str(error.value).startswith(said)


def test_a_function_in_two_stocks_is_told() -> None:
    again = Stock("nvme:scratch", "nvme:scratch", (DISKS.functions[1],))
    assert find_twice(STOCKS, "n2") is None
    fault = find_twice((*STOCKS, again), "n2")
    assert fault and str(fault).startswith("0000:5e:00.1 on n2 is in both network disks and nvme:scratch, so two jobs could")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('[{"ifname":"ib0","vfinfo_list":[{"vf":0,"address":"00:00","link_type":"infiniband","spoofchk":false,"node guid":'
         '"c2:cc:20:01:00:00:00:00","port guid":"c2:cc:20:01:00:00:00:01"},{"vf":1,"mac":"02:00:00:00:00:01"}]}]',
         {0: "c2:cc:20:01:00:00:00:01", 1: "02:00:00:00:00:01"}),
        ('[{},{"vfinfo_list":[{"vf":3,"address":"02::3","vlan_list":[{"vlan":100,"qos":2}]},{"vf":4,"mac":"02::4","vlan":7}]}]',
         {3: "02::3 VLAN 100", 4: "02::4 VLAN 7"}),
        ('[{"ifname":"ens1f0"}]', {}),
        ("", {}),
    ],
)
def test_ip_tells_what_functions_have(text: str, names: dict[int, str]) -> None:
    """The forms of several releases: iproute2 wrote mac where it writes address since 5.1."""
    assert parse_virtual(text) == names


def test_gres_conf_has_a_line_for_each_stock_of_the_node() -> None:
    empty = Stock("gpu:v100", "gpu:v100", ())
    assert render_gres((DISKS, empty, H100)) == [
        "Name=nvme File=/dev/vfio/50,/dev/vfio/51", "Name=gpu Type=h100 File=/dev/vfio/40,/dev/vfio/41",
    ]

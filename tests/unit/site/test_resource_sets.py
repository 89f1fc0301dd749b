"""resources.yaml: sets of networks, and what keeps VMs from having one."""

import pytest

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.networks.settings import parse_networks
from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.site.resource_sets import Access, ResourceSet, find_overlap, parse_resources

NETWORKS = """
lan: {type: ethernet}
pv: {type: ethernet, settings: {network-layer: L2}}
same: {type: ethernet}
wide: {type: ethernet, settings: {int-network: 10.128.0.0/9}}
apart: {type: ethernet, settings: {int-network: 10.100.0.0/16}}
br: {type: bridged, settings: {host-bridge: br0, tap-prefix: t}}
ib: {type: host-infiniband, settings: {host-device: mlx5_0}}
pci: {type: genericpci, settings: {host-device-addrs: ["0000:01:00.0"], host-driver: mlx5}}
"""
EVERY = parse_networks(parse_yaml(NETWORKS, "networks.yaml"), [])

POOLS = ("gpu:a100", "nvme")


def parse(text: str, broken: set[str] | None = frozenset()) -> tuple[dict[str, ResourceSet], list[str]]:
    problems: list[ConfigError] = []
    found = parse_resources(parse_yaml(text, "resources.yaml"), EVERY, problems, broken, POOLS)
    return found, [str(problem) for problem in problems]


def test_networks_with_nothing_behind_them_are_none() -> None:
    found, problems = parse("a:\n networks:\nb: {resources: {networks: ~}}\n")
    assert problems == [] and [one.networks for one in found.values()] == [(), ()]


def test_resource_sets_list_networks_in_order() -> None:
    found, problems = parse(
        "a: {networks: [pv, lan], default: True}\nb: {resources: {networks: [pv]}}\nc: {users: [x], qos: [y]}\nd:\n"
    )
    assert problems == []
    assert found == {
        "a": ResourceSet("a", ("pv", "lan"), True),
        "b": ResourceSet("b", ("pv",)),
        "c": ResourceSet("c", (), False, Access(users=("x",), qos=("y",))),
        "d": ResourceSet("d", ()),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {networks: [lan, nope]}", "resources.yaml:1: a.networks[1]: there is no network 'nope'"),
        ("a:\n  networks:\n  - lan\n  - lan", "resources.yaml:4: a.networks[1]: network 'lan' is listed twice"),
        (
            "a: {default: true}\nb: {default: true}",
            "resources.yaml:2: b.default: 'a' is the default already, and there can be only one",
        ),
        ("a: {networks: lan}", "resources.yaml:1: a.networks: expected a list, found text 'lan'"),
        ("a: {networks: [5]}", "resources.yaml:1: a.networks[0]: expected text, found a whole number '5'"),
        ("a: {network: [lan]}", "resources.yaml:1: a.network: unknown setting"),
        ("a: {users: []}", "resources.yaml:1: a.users: the list is empty"),
        ("a: {users: alice}", "resources.yaml:1: a.users: expected a list, found text 'alice'"),
        ("- a", "resources.yaml:1: expected a mapping of resource set names, found a list"),
        (
            "a: {networks: [lan, pv, same]}",
            (
                "resources.yaml:1: a.networks[2]: network 'same' (10.200.0.0/16) overlaps 'lan' (10.200.0.0/16), so no"
                " virtual cluster can have both"
            ),
        ),
        (
            "a: {resources: {networks: [wide, apart, lan]}}",
            (
                "resources.yaml:1: a.resources.networks[2]: network 'lan' (10.200.0.0/16) overlaps 'wide'"
                " (10.128.0.0/9), so no virtual cluster can have both"
            ),
        ),
    ],
)
def test_a_wrong_resource_set_is_one_sentence(text: str, said: str) -> None:
    assert parse(text)[1] == [said]


def test_three_defaults_are_two_problems() -> None:
    assert len(parse("".join(f"{name}: {{default: yes}}\n" for name in "abc"))[1]) == 2


def test_a_network_that_is_wrong_itself_is_not_told_again() -> None:
    assert parse("a: {networks: [nope, lan]}", {"nope"})[1] == []
    assert parse("a: {networks: [nope, other]}", None)[1] == []


def test_devices_are_counted() -> None:
    found, problems = parse("a: {devices: [gpu:a100, nvme]}\nb: {devices: {gpu:a100: 2, nvme: 1}}\nc: {devices: []}")
    assert problems == []
    assert [one.devices for one in found.values()] == [(("gpu:a100", 1), ("nvme", 1)), (("gpu:a100", 2), ("nvme", 1)), ()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {devices: [nvme, gpu]}", "resources.yaml:1: a.devices[1]: there is no device 'gpu'"),
        ("a:\n devices:\n  nvme: 1\n  gpu:h100: 1", "resources.yaml:4: a.devices.gpu:h100: there is no device 'gpu:h100'"),
        ("a: {devices: {nvme: 0}}", "resources.yaml:1: a.devices.nvme: 0 is not between 1 and 16"),
        ("a: {devices: {nvme: }}", "resources.yaml:1: a.devices.nvme: expected a whole number, found nothing"),
        ("a: {devices: [nvme, nvme]}", "resources.yaml:1: a.devices[1]: nvme is listed twice"),
        (
            "a: {devices: ['gpu:a100:2']}",
            "resources.yaml:1: a.devices[0]: expected the name of a GRES such as nic, or nic:mlx5 with a type, found text"
            " 'gpu:a100:2'",
        ),
        ("a: {devices: gpu}", "resources.yaml:1: a.devices: expected a list, found text 'gpu'"),
    ],
)
def test_wrong_devices_are_one_sentence(text: str, said: str) -> None:
    assert parse(text)[1] == [said]


def test_of_devices_that_are_wrong_themselves_nothing_is_said() -> None:
    problems: list[ConfigError] = []
    parse_resources(parse_yaml("a: {devices: [gpu]}", "resources.yaml"), EVERY, problems, (), None)
    assert problems == []


def test_sets_of_one_cluster_are_compared_too() -> None:
    pair = find_overlap(["lan", "pv", "br", "lan", "apart", "same"], EVERY)
    assert pair and [one.name for one in pair] == ["lan", "same"]
    assert find_overlap(["lan", "apart", "pv", "br", "gone"], EVERY) is None

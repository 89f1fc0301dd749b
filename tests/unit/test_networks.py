"""networks.yaml and resources.yaml: the original's keys, checked."""

from ipaddress import IPv4Network

import pytest

from pcocc_runtime import networks, yamlfile
from pcocc_runtime.networks import EthernetNetwork, OtherNetwork, ReverseNat

ORIGINAL = """
nat-rssh:
  type: ethernet
  settings:
    network-layer: "L3"
    int-network: "10.251.0.0/16"
    ext-network: "10.250.0.0/16"
    dev-prefix: "nat"
    mtu: 9000
    mac-prefix: 52:54:00
    reverse-nat:
      vm-port: 22
      min-host-port: 60222
      max-host-port: 60322
    host-if-suffix: ""
pv: {type: eth, settings: {network-layer: L2, dev-prefix: pv}}
ib:
  type: infiniband
  settings: {host-device: mlx5_0, min-pkey: "0x2000", max-pkey: 0x3000, opensm-daemon: opensm, license: pkey,
             opensm-partition-cfg: /etc/opensm/partitions.conf, opensm-partition-tpl: /etc/opensm/partitions.conf.tpl}
br: {type: bridged, settings: {host-bridge: br0, tap-prefix: t, vlans: [{vid: 100, type: native}]}}
pci: {type: genericpci, settings: {host-device-addrs: ["0000:01:00.0"], host-driver: mlx5}}
"""


def parse(text: str) -> tuple[dict[str, networks.Network], list[str]]:
    problems: list[networks.ConfigError] = []
    found = networks.parse_networks(yamlfile.parse(text, "networks.yaml"), problems)
    return found, [str(problem) for problem in problems]


def test_a_file_of_the_original_loads() -> None:
    found, problems = parse(ORIGINAL)
    assert problems == []
    nat = found["nat-rssh"]
    assert isinstance(nat, EthernetNetwork)
    assert (nat.layer, nat.int_network, nat.mtu, nat.mac_prefix) == ("L3", IPv4Network("10.251.0.0/16"), 8950, "52:54:00")
    assert nat.reverse_nat == (ReverseNat(22, 60222, 60322),)
    assert isinstance(found["ib"], OtherNetwork) and found["ib"].type == "infiniband"
    assert isinstance(found["br"], OtherNetwork) and found["br"].type == "bridged-ethernet"


def test_settings_have_defaults() -> None:
    found, problems = parse("lan: {type: ethernet}\n")
    assert problems == []
    assert found["lan"] == EthernetNetwork("lan", dev_prefix="lan")
    assert found["lan"].mtu == 1450  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("mtu: big", "lan.settings.mtu: expected a whole number, found text 'big'"),
        ("mtu: 100", "lan.settings.mtu: 100 is not between 1280 and 65535"),
        ("mtu: true", "lan.settings.mtu: expected a whole number, found true or false 'true'"),
        ("int-network: 10.0.0.0/33", "lan.settings.int-network: expected an IPv4 network such as 10.200.0.0/16"),
        ("int-network: 10.0.0.0/31", "lan.settings.int-network: 10.0.0.0/31 must have a prefix length between 8 and 29"),
        ("network-layer: L4", "lan.settings.network-layer: expected one of L3, L2, found text 'L4'"),
        ("mac-prefix: 01:00:00", "lan.settings.mac-prefix: '01:00:00' begins multicast addresses"),
        ("mac-prefix: '52:54:00:12'", "lan.settings.mac-prefix: expected one to three bytes"),
        ("dev-prefix: waytoolongname", "lan.settings.dev-prefix: expected a letter and up to 7"),
        ("dns-server: ns1", "lan.settings.dns-server: expected an IPv4 address"),
        ("domain-name: a..b", "lan.settings.domain-name: 'a..b' is not a domain name"),
        ("reverse-nat: {vm-port: 22}", "lan.settings.reverse-nat: min-host-port is missing"),
        ("reverse-nat: {vm-port: 22, min-host-port: 5, max-host-port: 4}", "min-host-port 5 is above max-host-port 4"),
        ("netwrk-layer: L3", "lan.settings.netwrk-layer: unknown setting"),
        ("allow-outbound: some", "lan.settings.allow-outbound: expected one of all, none"),
        ("host-if-suffix: 'a b'", "lan.settings.host-if-suffix: expected letters"),
    ],
)
def test_a_wrong_setting_is_one_sentence_with_its_place(settings: str, said: str) -> None:
    found, problems = parse(f"lan:\n  type: ethernet\n  settings:\n    {settings}\n")
    assert found == {}
    assert len(problems) == 1
    assert problems[0].startswith("networks.yaml:4: ")
    assert said in problems[0]


@pytest.mark.parametrize("prefix", ["52", "52:54", "52:54:00"])
def test_a_short_mac_prefix_is_filled_with_zeros(prefix: str) -> None:
    found, _ = parse(f"lan: {{type: ethernet, settings: {{mac-prefix: '{prefix}'}}}}")
    assert found["lan"].mac_prefix.startswith("52:") and len(found["lan"].mac_prefix) == 8  # type: ignore[union-attr]


def test_all_problems_are_found_at_once() -> None:
    _, problems = parse("a: {type: ether}\nb: {settings: {}}\n-c: {type: ethernet}\nd: 5\ne: {type: ib, settings: {}}\n")
    assert len(problems) == 10
    assert any("'-c' cannot name a network" in problem for problem in problems)
    assert any("d: expected a mapping, found a whole number '5'" in problem for problem in problems)


def resources(text: str) -> tuple[dict[str, networks.ResourceSet], list[str]]:
    every, _ = parse(ORIGINAL)
    problems: list[networks.ConfigError] = []
    found = networks.parse_resources(yamlfile.parse(text, "resources.yaml"), every, problems)
    return found, [str(problem) for problem in problems]


def test_resource_sets_list_networks_in_order() -> None:
    found, problems = resources("a: {networks: [pv, nat-rssh], default: True}\nb: {resources: {networks: [pv]}}\nc: {users: [x]}")
    assert problems == []
    assert found["a"].networks == ("pv", "nat-rssh") and found["a"].default
    assert found["b"].networks == ("pv",)
    assert found["c"].access.users == ("x",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {networks: [nope]}", "resources.yaml:1: a: there is no network 'nope'"),
        ("a: {networks: [pv, pv]}", "resources.yaml:1: a: network 'pv' is listed twice"),
        ("a: {default: true}\nb: {default: true}", "resources.yaml:2: b: 'a' is the default already; only one can be"),
        ("a: {networks: pv}", "resources.yaml:1: a.networks: expected a list, found text 'pv'"),
        ("- a", "resources.yaml:1: expected a mapping of resource set names, found a list"),
    ],
)
def test_a_wrong_resource_set_is_one_sentence(text: str, said: str) -> None:
    assert resources(text)[1] == [said]


def test_what_cannot_be_built_yet_is_told() -> None:
    every, _ = parse(ORIGINAL)
    found, _ = resources("a: {networks: [nat-rssh]}\nb: {networks: [pv]}\nc: {networks: [ib]}\nd: {groups: [g]}")
    assert networks.find_obstacle(found["a"], every) is None
    assert "network-layer L2" in str(networks.find_obstacle(found["b"], every))
    assert "of type infiniband" in str(networks.find_obstacle(found["c"], every))
    assert "groups" in str(networks.find_obstacle(found["d"], every))


@pytest.mark.parametrize(
    ("value", "found"), [("all", True), ("none", False), ("[192.0.2.0/24, 198.51.100.7]", ("192.0.2.0/24", "198.51.100.7/32"))]
)
def test_allow_outbound_is_all_none_or_destinations(value: str, found: bool | tuple[str, ...]) -> None:
    every, problems = parse(f"a: {{type: ethernet, settings: {{allow-outbound: {value}}}}}")
    one = every["a"]
    assert problems == [] and isinstance(one, networks.EthernetNetwork)
    allowed = one.allow_outbound
    assert (tuple(str(net) for net in allowed) if isinstance(allowed, tuple) else allowed) == found


def test_a_wrong_destination_is_one_sentence() -> None:
    _, problems = parse("a: {type: ethernet, settings: {allow-outbound: [192.0.2.1/24]}}")
    assert len(problems) == 1 and "an IPv4 network such as 192.0.2.0/24" in problems[0]

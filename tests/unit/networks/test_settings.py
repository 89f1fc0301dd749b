"""networks.yaml: the original's keys and ours, checked."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.networks.kinds import (
    BridgedNetwork,
    EthernetNetwork,
    GenericPci,
    HostInfiniband,
    InfinibandNetwork,
    Network,
    ReverseNat,
    SriovEthernet,
    Vlan,
)
from pcocc_runtime.networks.settings import find_network_notes, parse_networks
from pcocc_runtime.settings.tree import parse_yaml


def parse(text: str) -> tuple[dict[str, Network], list[str]]:
    problems: list[ConfigError] = []
    found = parse_networks(parse_yaml(text, "networks.yaml"), problems)
    return found, [str(problem) for problem in problems]


def only(text: str) -> Network:
    found, problems = parse(text)
    assert problems == []
    return found["n"]


def settings(**values: str) -> str:
    lines = "".join(f"    {key.replace('_', '-')}: {value}\n" for key, value in values.items())
    return f"n:\n  type: ethernet\n  settings:\n{lines}"


BRIDGED = "n:\n  type: bridged-ethernet\n  settings: {host-bridge: br0, tap-prefix: t, %s}\n"
IB = (
    "type: infiniband, settings: {host-device: mlx5_0, min-pkey: %s, max-pkey: %s, opensm-daemon: opensm, "
    "opensm-partition-cfg: /a, opensm-partition-tpl: /b}"
)
POOL = "n: {type: ib, settings: {host-device: m, min-pkey: '0x2000', max-pkey: '0x20ff', %s}}"
SRIOV = "n:\n  type: sriov-ethernet\n  settings: {host-device: e, %s}\n"
PCI = "n:\n  type: genericpci\n  settings: {host-device-addrs: [%s], host-driver: d}\n"


@pytest.mark.parametrize("text", ["n: {type: ethernet}", "n: {type: eth, settings: {}}", "n:\n  type: ethernet\n  settings:\n"])
def test_settings_have_defaults(text: str) -> None:
    assert only(text) == EthernetNetwork("n")
    assert EthernetNetwork("n").mtu == 1450


def test_every_type_has_its_class() -> None:
    text = settings(
        network_layer="L3", int_network="10.251.0.0/16", mtu="9000", mac_prefix="52:54", dns_server="192.0.2.53",
        dns_search="'a.example, b.example'", ntp_server="192.0.2.123", domain_name="x.example.", manage_ip_forward="no",
        allow_outbound="none", reverse_nat="{vm-port: 22, min-host-port: 60222, max-host-port: 60322}", encryption="none",
    )  # fmt: skip
    assert only(text) == EthernetNetwork(
        "n", "L3", IPv4Network("10.251.0.0/16"), 8950, "52:54:00", "x.example", IPv4Address("192.0.2.53"),
        ("a.example", "b.example"), IPv4Address("192.0.2.123"), False, (ReverseNat(22, 60222, 60322),), False,
    )  # fmt: skip
    assert only(BRIDGED % "mtu: 9000, vlans: [{vid: 5, type: native}]") == BridgedNetwork(
        "n", "br0", "t", 9000, (Vlan(5, "native"),)
    )
    assert only("n: {%s}" % (IB % ("'0x2000'", "0x3000"))) == InfinibandNetwork(
        "n", "mlx5_0", 0x2000, 0x3000, partitions_file="/a"
    )
    assert only("n: {type: hostib, settings: {host-device: mlx5_0}}") == HostInfiniband("n", "mlx5_0")
    assert only("n: {type: sriov-ethernet, settings: {host-device: ens1f0}}") == SriovEthernet("n", "ens1f0")
    assert only(SRIOV % "gres: 'nic:x', vlan: 5, rate: 10000, mtu: 9000") == SriovEthernet("n", "e", "nic:x", 5, 10000, 9000)
    assert only(PCI % "'0000:3b:00.0', '3b:00.1'") == GenericPci("n", ("0000:3b:00.0", "3b:00.1"), "d")


@pytest.mark.parametrize("prefix", ["52", "52:54", "52:54:00"])
def test_a_short_mac_prefix_is_filled_with_zeros(prefix: str) -> None:
    network = only(settings(mac_prefix=prefix))
    assert isinstance(network, EthernetNetwork)
    assert network.mac_prefix.startswith("52:") and len(network.mac_prefix) == 8


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("all", True),
        ("none", False),
        ("[192.0.2.0/24, 198.51.100.7]", (IPv4Network("192.0.2.0/24"), IPv4Network("198.51.100.7/32"))),
        ("[0.0.0.0/0]", (IPv4Network("0.0.0.0/0"),)),
    ],
)
def test_outbound_is_everything_nothing_or_a_list(value: str, meant: object) -> None:
    network = only(settings(allow_outbound=value))
    assert isinstance(network, EthernetNetwork) and network.allow_outbound == meant


def test_reverse_nat_is_one_rule_or_a_list() -> None:
    one, two = "{vm-port: 22, min-host-port: 1, max-host-port: 4}", "{vm-port: 80, min-host-port: 5, max-host-port: 5}"
    for text, meant in ((one, (ReverseNat(22, 1, 4),)), (f"[{one}, {two}]", (ReverseNat(22, 1, 4), ReverseNat(80, 5, 5)))):
        network = only(settings(reverse_nat=text))
        assert isinstance(network, EthernetNetwork) and network.reverse_nat == meant


SSH = "vm-port: 22, min-host-port: 60, max-host-port: 70"
WRONG = [
    ("mtu: big", "n.settings.mtu: expected a whole number, found text 'big'"),
    ("mtu: 100", "n.settings.mtu: 100 is not between 1330 and 65535"),
    ("mtu: true", "n.settings.mtu: expected a whole number, found true or false 'true'"),
    ("int-network: 10.0.0.0/33", "n.settings.int-network: expected an IPv4 network such as 10.200.0.0/16"),
    ("int-network: 10.0.0.0/31", "n.settings.int-network: 10.0.0.0/31 must have a prefix length between 8 and 29"),
    ("int-network: 10.0.0.1/16", "n.settings.int-network: 10.0.0.1/16 is an address inside a network, not a network"),
    ("int-network: 169.254.64.0/24", "n.settings.int-network: 169.254.64.0/24 overlaps 169.254.0.0/16, which is link-local"),
    ("int-network: 169.0.0.0/8", "n.settings.int-network: 169.0.0.0/8 overlaps 169.254.0.0/16"),
    ("int-network: 239.1.0.0/16", "n.settings.int-network: 239.1.0.0/16 overlaps 224.0.0.0/4, which is multicast"),
    ("int-network: fd00::/64", "n.settings.int-network: expected an IPv4 network"),
    ("network-layer: L4", "n.settings.network-layer: expected one of L3, L2, found text 'L4'"),
    ("mac-prefix: 01:00:00", "n.settings.mac-prefix: '01:00:00' begins multicast addresses"),
    ("mac-prefix: '52:54:00:12'", "n.settings.mac-prefix: expected one to three bytes"),
    ("mac-prefix: 02:70:63", "n.settings.mac-prefix: '02:70:63' begins the addresses of the nodes themselves"),
    ("mac-prefix: 02:70:67", "n.settings.mac-prefix: '02:70:67' begins the addresses of the nodes themselves"),
    ("dev-prefix: waytoolongname", "n.settings.dev-prefix: expected a letter and up to 7"),
    ("dns-server: ns1", "n.settings.dns-server: expected an IPv4 address"),
    ("ntp-server: ntp.example", "n.settings.ntp-server: expected an IPv4 address"),
    ("domain-name: a..b", "n.settings.domain-name: 'a..b' is not a domain name"),
    ("dns-search: 'a.b,,c'", "n.settings.dns-search: '' is not a domain name"),
    ("dns-search: [a.b, -c]", "n.settings.dns-search[1]: '-c' is not a domain name"),
    ("reverse-nat: 22", "n.settings.reverse-nat: expected a mapping, found a whole number '22'"),
    ("reverse-nat: {min-host-port: 6, max-host-port: 7}", "n.settings.reverse-nat: vm-port is missing"),
    ("reverse-nat: {vm-port: 22, min-host-port: 5, max-host-port: 4}", "min-host-port 5 is above max-host-port 4"),
    ("reverse-nat: {vm-port: 0, min-host-port: 5, max-host-port: 5}", "n.settings.reverse-nat.vm-port: 0 is not between 1 and"),
    (f"reverse-nat: [{{{SSH}}}, {{{SSH}0}}]", "n.settings.reverse-nat[1]: vm-port 22 has a range already"),
    ("netwrk-layer: L3", "n.settings.netwrk-layer: unknown setting"),
    ("allow-outbound: some", "n.settings.allow-outbound: expected 'all', 'none' or a list of IPv4 networks, found text 'some'"),
    ("allow-outbound: []", "n.settings.allow-outbound: the list is empty"),
    ("allow-outbound: [all]", "n.settings.allow-outbound[0]: expected an IPv4 network"),
    ("allow-outbound: [192.0.2.9/24]", "n.settings.allow-outbound[0]: 192.0.2.9/24 is an address inside a network"),
    ("allow-outbound: ['2001:db8::/32']", "n.settings.allow-outbound[0]: expected an IPv4 network"),
    ("encryption: wireguard", "n.settings.encryption: expected 'none', found text 'wireguard'"),
    ("encryption: off", "n.settings.encryption: expected 'none', found true or false 'off'"),
    ("host-if-suffix: 'a b'", "n.settings.host-if-suffix: expected letters"),
    ("manage-ip-forward: maybe", "n.settings.manage-ip-forward: expected true or false, found text 'maybe'"),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[line for line, _said in WRONG])
def test_a_wrong_ethernet_setting_is_one_sentence_with_its_place(line: str, said: str) -> None:
    found, problems = parse(f"n:\n  type: ethernet\n  settings:\n    {line}\n")
    assert found == {}
    assert len(problems) == 1
    assert problems[0].startswith("networks.yaml:4: ")
    assert said in problems[0]


OTHERS = [
    (BRIDGED % "vlans: [{vid: 5, type: native}, {vid: 6, type: native}]", "vlans[1]: VLAN 5 is native already; only one can be"),
    (BRIDGED % "vlans: [{vid: 5, type: tagged}, {vid: 5, type: native}]", "vlans[1]: VLAN 5 is listed twice"),
    (BRIDGED % "vlans: [{vid: 4095, type: tagged}]", "vlans[0].vid: 4095 is not between 1 and 4094"),
    (BRIDGED % "vlans: [{vid: 5, type: trunk}]", "vlans[0].type: expected one of native, tagged, untagged"),
    (BRIDGED % "vlans: {vid: 5}", "vlans: expected a list, found a mapping"),
    (BRIDGED % "mtu: 9", "mtu: 9 is not between 1280 and 65535"),
    (BRIDGED % "bridge: br1", "bridge: unknown setting"),
    (
        "n: {type: bridged, settings: {host-bridge: br-0123456789abc, tap-prefix: t}}",
        "host-bridge: 'br-0123456789abc' has 16 characters, but may have 15 at most: an interface's name has at most 15",
    ),
    (
        "n: {type: bridged, settings: {host-bridge: br0, tap-prefix: eightlet}}",
        "tap-prefix: 'eightlet' has 8 characters, but may have 7 at most: an interface's name has at most 15, and pcocc needs 8",
    ),
    ("n: {type: bridged, settings: {host-bridge: b, tap-prefix: pcnx}}", "tap-prefix: 'pcnx' begins like names of pcocc's own"),
    ("n: {type: bridged, settings: {host-bridge: a/b, tap-prefix: t}}", "host-bridge: expected letters"),
    ("n: {type: bridged, settings: {tap-prefix: t}}", "n.settings: host-bridge is missing"),
    ("n: {%s}" % (IB % ("0x3000", "0x2000")), "min-pkey: min-pkey 0x3000 is above max-pkey 0x2000"),
    ("n: {%s}" % (IB % ("0xa001", "0xa001")), "min-pkey: 0xa001 is not between 0x1 and 0x7ffe"),
    ("n: {%s}" % (IB % ("0x0", "0x1")), "min-pkey: 0x0 is not between 0x1 and 0x7ffe"),
    ("n: {%s}" % (IB % ("0x2000", "0x7fff")), "max-pkey: 0x7fff is the fabric's default partition"),
    ("n: {%s}" % (IB % ("0x2000", "0xffff")), "max-pkey: 0xffff is the fabric's default partition"),
    (POOL % "guid-prefix: '0xc1cc'", "guid-prefix: '0xc1cc' begins multicast addresses, which no port can have"),
    (POOL % "guid-prefix: '0xc2c'", "guid-prefix: expected four hexadecimal digits"),
    (POOL % "max-vms: 65536", "min-pkey: 256 keys for clusters of 65536 VMs are more than 8388608 GUIDs"),
    ("n: {%s}" % (IB % ("8192", "0x9000")), "min-pkey: expected a partition key such as 0x2000"),
    ("n: {type: host-infiniband}", "n.settings: host-device is missing"),
    (SRIOV % "vlan: 0", "vlan: 0 is not between 1 and 4094"),
    (SRIOV % "vlan: 4095", "vlan: 4095 is not between 1 and 4094"),
    (SRIOV % "rate: 0", "rate: 0 is not between 1 and 1000000"),
    (SRIOV % "mtu: 1279", "mtu: 1279 is not between 1280 and 65535"),
    (SRIOV % "gres: 5", "gres: expected the name of a GRES such as nic"),
    (SRIOV % "trust: on", "trust: unknown setting"),
    (SRIOV.replace(" e,", " enp129s0f1np1d01,") % "vlan: 5", "host-device: 'enp129s0f1np1d01' has 16 characters"),
    (SRIOV.replace("host-device: e", "host-device: 'e vf 0 trust on'") % "vlan: 5", "host-device: expected letters, digits"),
    (SRIOV.replace("host-device: e, ", "") % "vlan: 5", "host-device is missing"),
    (PCI % "", "host-device-addrs: the list is empty"),
    (PCI % "'0000:3b:00.8'", "host-device-addrs[0]: expected a PCI address such as 0000:81:00.0"),
    (PCI % "'3b:00.0', '3b:00.0'", "host-device-addrs: device 3b:00.0 is listed twice"),
    ("n: {type: ether}", "n.type: expected one of ethernet, "),
    ("n: {settings: {}}", "n: type is missing"),
    ("n: 5", "n: expected a mapping, found a whole number '5'"),
    ("-c: {type: ethernet}", "-c: '-c' cannot name a network"),
]


@pytest.mark.parametrize(("text", "said"), OTHERS)
def test_a_wrong_network_of_another_type_is_told(text: str, said: str) -> None:
    assert said in parse(text)[1][0]


def test_all_problems_are_found_at_once_even_within_one_setting() -> None:
    rules = "[{vm-port: 0, min-host-port: x}, {vm-port: 5, min-host-port: 1, max-host-port: 2}, 7]"
    _, problems = parse(settings(reverse_nat=rules, mtu="1", allow_outbound="[a, b]"))
    places = [problem.split(": ")[1] for problem in problems]
    assert sorted(places) == sorted(
        [
            "n.settings.reverse-nat[0].vm-port", "n.settings.reverse-nat[0].min-host-port", "n.settings.reverse-nat[0]",
            "n.settings.reverse-nat[2]", "n.settings.mtu", "n.settings.allow-outbound[0]", "n.settings.allow-outbound[1]",
        ]
    )  # fmt: skip


def rule(low: int, high: int, port: int = 22) -> str:
    return f"{{vm-port: {port}, min-host-port: {low}, max-host-port: {high}}}"


def test_host_port_ranges_that_overlap_are_told_with_both_places() -> None:
    text = (
        "a:\n  type: ethernet\n  settings:\n    reverse-nat:\n"
        f"    - {rule(60, 70)}\n    - {rule(70, 80, 80)}\n"
        f"b: {{type: ethernet, settings: {{reverse-nat: {rule(75, 75)}}}}}\n"
        f"c: {{type: ethernet, settings: {{reverse-nat: {rule(81, 90)}}}}}\n"
        f"d: {{type: ethernet, settings: {{network-layer: L2, reverse-nat: {rule(60, 90)}}}}}\n"
    )
    found, problems = parse(text)
    assert set(found) == {"a", "b", "c", "d"}
    assert problems == [
        "networks.yaml:6: a.settings.reverse-nat[1]: host ports 70 to 80 overlap host ports 60 to 70 of "
        "a.settings.reverse-nat[0] (line 5)",
        "networks.yaml:7: b.settings.reverse-nat: host ports 75 to 75 overlap host ports 70 to 80 of "
        "a.settings.reverse-nat[1] (line 6)",
    ]


OTHER = "license: l, guid-prefix: '0xc2cd'"


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("opensm-partition-cfg: /a", "partition keys of /a"),
        (OTHER, None),
        (f"{OTHER}, opensm-partition-cfg: /a", "partition keys of /a"),
        ("license: l", "GUIDs 0xc2cc"),
        ("guid-prefix: '0xc2cd'", "licences pkey"),
    ],
)
def test_pools_overlap_in_keys_guids_or_licences(more: str, what: str | None) -> None:
    problems: list[ConfigError] = []
    text = "a: {%s}\nb: {type: ib, settings: {host-device: m, min-pkey: '0x2fff', max-pkey: '0x3fff', %s}}"
    parse_networks(parse_yaml(text % (IB % ("0x2000", "0x2fff"), more), "networks.yaml"), problems)
    said = (
        "networks.yaml:2: b.settings.min-pkey: partition keys 0x2fff to 0x3fff overlap partition keys 0x2000 to 0x2fff of "
        "a.settings.min-pkey (line 1)"
    )
    assert [(str(one), one.hint) for one in problems] == (
        [(said, f"two ranges cannot share {what}")] if what else []
    )


def test_an_unknown_key_names_the_nearest_one_there_is() -> None:
    problems: list[ConfigError] = []
    parse_networks(parse_yaml(settings(reverse_natt="x"), "networks.yaml"), problems)
    assert problems[0].hint == "did you mean 'reverse-nat'?"


def notes(text: str) -> list[str]:
    return find_network_notes(parse_yaml(text, "networks.yaml"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ext-network", "10.1.0.0/16"), ("ext-network", "10.1.0.1/16"),
        ("dev-prefix", "x"),
        ("host-if-suffix", "-ib"), ("host-if-suffix", "_ib0"),
        ("mac-start-offset", "5"),
        ("gateway", "local-nat"),
    ],
)
def test_a_key_without_effect_is_accepted_and_noted(key: str, value: str) -> None:
    text = settings(**{key: value})
    assert isinstance(only(text), EthernetNetwork)
    [note] = notes(text)
    assert note.startswith(f"networks.yaml:4: n.settings.{key}: no longer needed: ")


def test_an_l2_network_notes_what_only_l3_has() -> None:
    found = notes(settings(network_layer="L2", mtu="9000", int_network="10.1.0.0/16", dns_server="192.0.2.53", dev_prefix="x"))
    assert [note.split(": ")[1:3] for note in found] == [
        ["n.settings.int-network", "without effect on an L2 network, which is given no addresses and has no way out"],
        ["n.settings.dns-server", "without effect on an L2 network, which is given no addresses and has no way out"],
        ["n.settings.dev-prefix", "no longer needed"],
    ]


@pytest.mark.parametrize(
    "text", ["", "- a", "n: 5", "n: {type: 5, settings: 7}", "n: {settings: {dev-prefix: x}}", "n: {type: ib}"]
)
def test_there_are_no_notes_where_nothing_can_be_read(text: str) -> None:
    assert notes(text) == []


def test_addresses_of_a_bridged_network() -> None:
    found = only(BRIDGED % "addresses: [192.0.2.0/25, 192.0.2.200, '2001:db8::/64']")
    assert isinstance(found, BridgedNetwork)
    assert [str(one) for one in found.addresses] == ["192.0.2.0/25", "192.0.2.200/32", "2001:db8::/64"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[192.0.2.7/24]", "write 192.0.2.0/24"), ("[]", "the list is empty"), ("[lan]", "a network or an address"),
        ("192.0.2.0/24", "a list"),
    ],
)
def test_addresses_that_are_none_are_told(text: str, said: str) -> None:
    problems: list[ConfigError] = []
    parse_networks(parse_yaml(BRIDGED % f"addresses: {text}", "networks.yaml"), problems)
    assert len(problems) == 1 and said in f"{problems[0]} {problems[0].hint}"


OLD = """
nat-rssh:
  type: nat
  settings:
    nat-network: "10.250.0.0/16"
    vm-network: "10.251.0.1/16"
    vm-network-gw: "10.251.0.1"
    vm-ip: "10.251.0.2"
    vm-hwaddr: "52:54:00:44:AE:5E"
    bridge: nat-br
    bridge-hwaddr: "52:54:00:C0:C0:C0"
    tap-prefix: nat-
    mtu: 1500
    domain-name: "a.example, b.example"
    dns-server: ""
    ntp-server: "192.0.2.123"
    allow-outbound: none
    reverse-nat: {vm-port: 22, min-host-port: 60222, max-host-port: 60322}
private:
  type: pv
  settings: {mac-prefix: "52:54:00:01", bridge-prefix: pvbr, tap-prefix: pv-, mtu: 9000, host-if-suffix: "-ib0"}
tiny:
  type: nat
  settings: {vm-network: 192.168.1.0/30, nat-network: 10.1.0.0/16, vm-network-gw: 192.168.1.1,
             vm-ip: 192.168.1.2, bridge: b, tap-prefix: t}
"""


def test_old_types_are_read_as_what_they_mean_and_told() -> None:
    problems: list[ConfigError] = []
    found = parse_networks(parse_yaml(OLD, "networks.yaml"), problems)
    assert problems == []
    nat, private, tiny = found.values()
    assert isinstance(nat, EthernetNetwork) and isinstance(private, EthernetNetwork) and isinstance(tiny, EthernetNetwork)
    assert (nat.layer, str(nat.int_network), nat.allow_outbound, nat.domain_name) == ("L3", "10.251.0.0/16", False, "a.example")
    assert nat.dns_search == ("a.example", "b.example") and nat.dns_server is None and nat.reverse_nat[0].min_host_port == 60222
    assert (private.layer, private.mac_prefix, private.mtu) == ("L2", "52:54:00", 8950)
    assert tiny.int_network == EthernetNetwork("n").int_network
    told = notes(OLD)
    assert "networks.yaml:3: nat-rssh.type: type nat of the first releases is read as type ethernet" in told[0]
    assert sum("no longer needed" in one for one in told) == 7 + 3 + 5
    assert any("private.type: type pv" in one for one in told)


@pytest.mark.parametrize(
    ("line", "said"),
    [("vm-network: x", "nat.settings.vm-network"), ("vm-netwrok: 10.0.0.0/16", "unknown setting"), ("mtu: 5", "mtu")],
)
def test_what_is_wrong_in_an_old_type_is_told_in_its_place(line: str, said: str) -> None:
    problems: list[ConfigError] = []
    parse_networks(parse_yaml(f"nat:\n  type: nat\n  settings:\n    {line}\n", "networks.yaml"), problems)
    assert len(problems) == 1 and said in str(problems[0]) and problems[0].line == 4

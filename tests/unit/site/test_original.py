"""Files such as sites of the original pcocc have load unchanged; these are our own, written from its documented keys."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from pcocc_runtime.networks.kinds import (
    BridgedNetwork,
    EthernetNetwork,
    GenericPci,
    HostInfiniband,
    InfinibandNetwork,
    ReverseNat,
    Vlan,
)
from pcocc_runtime.site.check import load_everything
from pcocc_runtime.site.site import read_site

SITES = Path(__file__).parents[2] / "data/original"


@pytest.mark.parametrize("name", sorted(path.name for path in SITES.iterdir()))
def test_the_files_are_right_and_have_a_default(name: str) -> None:
    loaded = load_everything(str(SITES / name))
    assert loaded.problems == ()
    assert loaded.site.default_set in loaded.site.resource_sets


def test_the_university() -> None:
    site = read_site(SITES / "university")
    assert site.networks["students"] == EthernetNetwork(
        "students", "L3", IPv4Network("10.251.0.0/16"), 1450, "52:54:00", "vm.example.edu", IPv4Address("192.0.2.53"),
        ("example.edu", "cluster.example.edu"), IPv4Address("192.0.2.123"), True, (ReverseNat(22, 61222, 61422),),
    )  # fmt: skip
    assert site.networks["bare"] == EthernetNetwork("bare", "L2", mtu=8950)
    assert site.resource_sets == {"course": ("students",), "two-nics": ("students", "bare"), "lonely": ()}


def test_the_university_is_told_what_it_no_longer_needs() -> None:
    notes = load_everything(str(SITES / "university")).notes
    keys = ["students.dev-prefix", "students.ext-network", "students.host-if-suffix", "bare.dev-prefix", "bare.mac-start-offset"]
    assert [note.split(": ")[1].replace(".settings", "") for note in notes] == keys


def test_industry() -> None:
    site = read_site(SITES / "industry")
    assert site.networks["mgmt"] == EthernetNetwork("mgmt", mac_prefix="52:54:7a", allow_outbound=False, manage_ip_forward=False)
    assert site.all_networks["fabric"] == InfinibandNetwork("fabric", "mlx5_0", 0x2000, 0x3000)
    notes = load_everything(str(SITES / "industry")).notes
    assert [note.split(": ")[1] for note in notes if "fabric" in note] == [
        "fabric.settings.opensm-daemon",
        "fabric.settings.opensm-partition-tpl",
    ]
    assert site.all_networks["node-hca"] == HostInfiniband("node-hca", "mlx5_1")
    assert site.all_networks["gpu"] == GenericPci("gpu", ("0000:3b:00.0", "0000:af:00.0"), "nvidia")
    assert set(site.resource_sets) == {"plain", "hpc", "host-hpc", "gpu"}


def test_the_laboratory() -> None:
    site = read_site(SITES / "lab")
    assert site.networks["office"] == BridgedNetwork("office", "br-office", "office")
    vlans = (Vlan(100, "native"), Vlan(101, "tagged"), Vlan(102, "untagged"))
    assert site.networks["trunk"] == BridgedNetwork("trunk", "brtrunk", "tr", 9000, vlans)
    assert set(site.resource_sets) == {"default", "on-site", "router"}

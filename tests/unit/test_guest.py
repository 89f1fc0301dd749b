"""What a guest is told: network-config and vendor-data, byte for byte, and read by YAML."""

import re
from pathlib import Path

import pytest
import yaml

from pcocc_runtime import guestnet, seed
from pcocc_runtime.addressing import PORTFILE
from pcocc_runtime.document import Mount
from pcocc_runtime.guestnet import Interface, Subnet

FIRST = {"index": 0, "layer": "L3", "network": "10.200.0.0/16", "domain": "vcluster", "search": [], "network6": None,
         "gateway": "10.200.255.254"}  # fmt: skip
SECOND = {"index": 1, "layer": "L3", "network": "10.201.0.0/24", "domain": "other.example", "search": ["site.example"],
          "network6": "fd70:636f:0:301::/64", "gateway": "10.201.0.254"}  # fmt: skip
BRIDGED = {"index": 2, "layer": "bridged"}
BARE = {"index": 3, "layer": "L2", "gateway": "10.200.255.254"}
MACS = ["52:54:00:00:00:01", "52:54:00:04:00:01", "52:54:00:08:00:01", "52:54:00:0c:00:01"]
NODE = {
    "networks": [FIRST, SECOND, BRIDGED, BARE],
    "interfaces": {
        "0": [{"network": 0, "mac": "52:54:00:00:00:00", "mtu": 1450}],
        "1": [{"network": n, "mac": mac, "mtu": mtu} for n, (mac, mtu) in enumerate(zip(MACS, (1450, 8950, 1500, 1500), strict=True))],
    },
}
KEYS = seed.Keys("-----BEGIN A-----\nx\n-----END A-----\n", "ssh-ed25519 AAA u", "-----BEGIN B-----\ny\n-----END B-----\n", "ssh-ed25519 BBB h")
ALICE = seed.Login("alice", 2001, 2002, "/home/alice")

CONFIG = """\
version: 1
config:
- type: physical
  name: eth0
  mac_address: "52:54:00:00:00:01"
  mtu: 1450
  subnets:
  - type: static
    address: "10.200.0.2/16"
    gateway: "10.200.255.254"
    dns_nameservers: ["10.200.255.254"]
    dns_search: ["vcluster"]
- type: physical
  name: eth1
  mac_address: "52:54:00:04:00:01"
  mtu: 8950
  subnets:
  - type: static
    address: "10.201.0.2/24"
    dns_nameservers: ["10.201.0.254"]
    dns_search: ["other.example", "site.example"]
  - type: static6
    address: "fd70:636f:0:301::4:1/128"
- type: physical
  name: eth2
  mac_address: "52:54:00:08:00:01"
  mtu: 1500
  subnets: [{type: dhcp4}]
- type: physical
  name: eth3
  mac_address: "52:54:00:0c:00:01"
  mtu: 1500
  subnets: [{type: manual}]
"""


def test_a_vm_configures_its_interfaces_without_asking() -> None:
    text = guestnet.render_network_config(guestnet.plan_interfaces(NODE, 1))
    assert text == CONFIG
    assert [one["name"] for one in yaml.safe_load(text)["config"]] == ["eth0", "eth1", "eth2", "eth3"]


def test_a_vm_has_only_the_networks_of_its_resource_set() -> None:
    assert [one.name for one in guestnet.plan_interfaces(NODE, 0)] == ["eth0"]
    assert yaml.safe_load(guestnet.render_network_config(())) == {"version": 1, "config": []}


def test_an_address_of_the_other_family_goes_beside_the_first() -> None:
    one = Interface("eth0", "52:54:00:00:00:00", 1450, (Subnet("10.0.0.1/8", "10.0.0.2"), Subnet("fd00::1/64")))
    subnets = yaml.safe_load(guestnet.render_network_config([one]))["config"][0]["subnets"]
    assert subnets == [{"type": "static", "address": "10.0.0.1/8", "gateway": "10.0.0.2"}, {"type": "static6", "address": "fd00::1/64"}]


def vendor(**options: object) -> dict[str, object]:
    found = yaml.safe_load(seed.render_vendor_data(1, "vcluster", ALICE, KEYS, **options))  # type: ignore[arg-type]
    assert isinstance(found, dict)
    return found


def test_only_a_vm_with_ports_of_its_node_is_told_of_them() -> None:
    def files(ports: str) -> dict[str, object]:
        found = seed.render_seed(job=12, rank=1, vms=2, domain="d", login=ALICE, keys=KEYS, user_data=None, ports=ports)
        return {file["path"]: file["content"] for file in yaml.safe_load(found["vendor-data"])["write_files"]}

    assert files("22=n1:60222,80=n1:60300")[PORTFILE] == "12 22=n1:60222,80=n1:60300\n"
    assert PORTFILE not in files("")


def test_mounts_stand_at_their_tags() -> None:
    mounts = (Mount("data", "/x", "9p", True), Mount("fast", "/y", "virtiofs"))
    assert vendor(mounts=mounts)["mounts"] == [
        ["data", "/mnt/data", "9p", "trans=virtio,version=9p2000.L,msize=262144,ro,nofail", "0", "0"],
        ["fast", "/mnt/fast", "virtiofs", "rw,nofail", "0", "0"],
    ]
    assert "mounts" not in vendor()


@pytest.mark.parametrize("tag", ["sda", "vdb1", "xvda", "sr0", "root", "swap", "ami", "ephemeral0", "ebs1", "a.b"])
def test_a_tag_that_cloud_init_takes_for_a_disk_is_left_to_the_user(tag: str) -> None:
    assert "mounts" not in vendor(mounts=(Mount(tag, "/x"),))


@pytest.mark.parametrize(("name", "users"), [(None, ["alice", "root"]), ("root", ["alice", "root"]), ("alice", ["alice", "root"]),
                                             ("debian", ["alice", "debian", "root"])])  # fmt: skip
def test_the_user_that_commands_run_as_can_log_in_and_on(name: str | None, users: list[str]) -> None:
    found = vendor(command_user=name)
    assert [user["name"] for user in found["users"]] == users  # type: ignore[index,attr-defined]
    assert all(user["ssh_authorized_keys"] == ["ssh-ed25519 AAA u"] for user in found["users"])  # type: ignore[index,attr-defined]
    owners = {file["owner"] for file in found["write_files"] if file["path"].endswith("/.ssh/id_ed25519")}  # type: ignore[index,attr-defined]
    assert owners == {*users} - {"root"} | {"root:root"}


@pytest.mark.parametrize("name", ["meta-data", "user-data", "vendor-data", "network-config"])
def test_the_seed_is_what_it_was(name: str) -> None:
    """A golden copy: whoever changes what guests are told sees it here, and must say so in NEWS.md."""
    mounts = (Mount("data", "/x", "9p", True), Mount("fast", "/y", "virtiofs"))
    found = seed.render_seed(
        job=12, rank=1, vms=2, domain="vcluster", login=ALICE, keys=KEYS, user_data="#cloud-config\npackages: [vim]\n",
        command_user="debian", mounts=mounts, interfaces=guestnet.plan_interfaces(NODE, 1),
    )  # fmt: skip
    assert found[name] == (Path(__file__).parents[1] / "data/seed" / name).read_text()


def test_every_line_is_flat_enough_for_small_guests() -> None:
    text = seed.render_vendor_data(2, "vcluster", ALICE, KEYS, "worker", (Mount("d", "/x"),), "12 22=n1:60222")
    assert all(re.match(r"#cloud-config$|[a-z_]+:( |$)|- |  [a-z0-9_]+:|    ", line) for line in text.splitlines())

"""What the real cloud-init (22.4 in Debian 12) says of user-data, and makes of what we tell a guest."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from pcocc_runtime import guestnet, seed, userdata
from pcocc_runtime.document import Mount
from pcocc_runtime.errors import RequestError
from pcocc_runtime.system import cloudinit
from tests.unit.site import Ask, frozen, refused, user_template
from tests.unit.test_guest import ALICE, KEYS, NODE


@pytest.mark.parametrize(
    "text",
    [
        "#cloud-config\n",
        "#cloud-config\n{}\n",
        "#cloud-config\npackages: [vim]\nruncmd: [[a, b], c]\n",
        "#cloud-config\nssh_pwauth: maybe\n",  # deprecated only
    ],
)
def test_right_user_data_passes(text: str) -> None:
    assert cloudinit.find_schema_error(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("packages: vim\n", "packages: 'vim' is not of type 'array'"),
        ("packages: vim\nruncmd: 7\n", "packages: 'vim' is not of type 'array', runcmd: 7 is not of type 'array'"),
        ("write_files: [{content: x}]\nssh_pwauth: maybe\n", "write_files.0: 'path' is a required property"),
        ("a: [\n", "it is not valid YAML in line 3: while parsing a flow node expected the node content"),
        ("a: \x07\n", "it is not valid YAML in line 1: unacceptable character #x0007"),
    ],
)
def test_wrong_user_data_is_told_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    found = cloudinit.find_schema_error(f"#cloud-config\n{text}")
    assert found and found.startswith(said) and not re.search("/tmp|deprecat|schema|Error", found), found
    path = tmp_path / "ud"
    path.write_text(f"#cloud-config\n{text}")
    with pytest.raises(RequestError, match=re.escape(f"user-data file {path} is no cloud-config that cloud-init takes: {said}")):
        userdata.read_user_data(str(path))


OTHERS = ["#!/bin/sh\nexit 0\n", "#include\nhttp://a/b\n", "## template: jinja\n#cloud-config\n{{ x }}\n", "", "packages: vim"]


@pytest.mark.parametrize("text", OTHERS)
def test_user_data_of_another_kind_is_left_alone(ask: Ask, tmp_path: Path, text: str) -> None:
    (tmp_path / "ud").write_text(text)
    assert frozen(ask(user_data="ud")).groups[0].user_data == text


def test_a_mistake_is_told_at_submission(ask: Ask, tmp_path: Path) -> None:
    user_template(tmp_path, "mine:\n  inherits: tiny\n  user-data: {packages: vim}\n")
    assert "templates.yaml:3: mine.user-data: cloud-init finds wrong: packages: 'vim' is not of type 'array'" in refused(ask("mine"))


@pytest.mark.parametrize("command_user", [None, "root", "debian"])
@pytest.mark.parametrize("mounts", [(), (Mount("data", "/x", "9p", True), Mount("fast", "/y", "virtiofs"))])
@pytest.mark.parametrize("login", [ALICE, seed.Login("root", 0, 0, "/root"), seed.Login("b-2", 70000, 70001, "/h/b", 'B "2": x')])
def test_cloud_init_takes_what_we_tell_it(login: seed.Login, mounts: tuple[Mount, ...], command_user: str | None) -> None:
    text = seed.render_vendor_data(3, "vcluster", login, KEYS, command_user, mounts)
    assert cloudinit.find_schema_error(text) is None


def convert(directory: Path, kind: str) -> dict[str, str]:
    """Return the files that cloud-init configures vm1's interfaces with, by path, for a distribution's way of doing that."""
    (directory / "net").write_text(guestnet.render_network_config(guestnet.plan_interfaces(NODE, 1)))
    argv = ["cloud-init", "devel", "net-convert", "-p", "net", "-k", "yaml", "-d", "out", "-D", "debian", "-O", kind]
    subprocess.run(argv, cwd=directory, check=True, capture_output=True)
    return {str(path.relative_to(directory / "out")): path.read_text() for path in (directory / "out").rglob("*") if path.is_file()}


def test_addresses_reach_netplan(tmp_path: Path) -> None:
    (text,) = convert(tmp_path, "netplan").values()
    found = yaml.safe_load(text)["network"]["ethernets"]
    assert found["eth0"]["addresses"] == ["10.200.0.2/16"] and found["eth0"]["gateway4"] == "10.200.255.254"
    assert found["eth0"]["nameservers"] == {"addresses": ["10.200.255.254"], "search": ["vcluster"]}
    assert found["eth0"]["mtu"] == 1450 and found["eth0"]["match"] == {"macaddress": "52:54:00:00:00:01"}
    assert found["eth1"]["addresses"] == ["10.201.0.2/24", "fd70:636f:0:301::4:1/128"]
    assert [name for name, one in found.items() if "dhcp4" in one] == ["eth2"], "only the site's own network is asked"


@pytest.mark.parametrize(
    ("kind", "path", "lines"),
    [
        ("eni", "etc/network/interfaces.d/50-cloud-init", ["iface eth0 inet static", "address 10.200.0.2/16", "gateway 10.200.255.254"]),
        ("networkd", "etc/systemd/network/10-cloud-init-eth0.network", ["DHCP=no", "Address=10.200.0.2/16", "Gateway=10.200.255.254"]),
        ("network-manager", "etc/NetworkManager/system-connections/cloud-init-eth0.nmconnection", ["method=manual", "address1=10.200.0.2/16"]),
    ],
)
def test_addresses_reach_every_other_way(tmp_path: Path, kind: str, path: str, lines: list[str]) -> None:
    text = convert(tmp_path, kind)[path]
    assert [line for line in lines if not re.search(rf"(?m)^\s*{re.escape(line)}$", text)] == []

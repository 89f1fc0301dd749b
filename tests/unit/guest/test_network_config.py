"""What the real cloud-init makes of the network configuration that a guest is given."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pcocc_runtime.documents.node import FunctionFacts
from pcocc_runtime.guest import network_config
from tests.unit.guest.guests import NODE


def convert(directory: Path, kind: str) -> dict[str, str]:
    """Return the files that cloud-init configures vm1's interfaces with, by path, for a distribution's way of doing that."""
    (directory / "net").write_text(network_config.render_network_config(network_config.plan_interfaces(NODE, 1)))
    argv = ["cloud-init", "devel", "net-convert", "-p", "net", "-k", "yaml", "-d", "out", "-D", "debian", "-O", kind]
    subprocess.run(argv, cwd=directory, check=True, capture_output=True)
    return {
        str(path.relative_to(directory / "out")): path.read_text()
        for path in (directory / "out").rglob("*")
        if path.is_file()
    }


def test_addresses_reach_netplan(tmp_path: Path) -> None:
    (text,) = convert(tmp_path, "netplan").values()
    found = yaml.safe_load(text)["network"]["ethernets"]
    assert found["eth0"]["addresses"] == ["10.200.0.2/16", "fd70:636f:0:300::4:1/128"]
    assert "10.200.255.254" in (found["eth0"].get("gateway4"), *(  # or, of later ones, a route
        route["via"] for route in found["eth0"].get("routes", []) if route["to"] in ("default", "0.0.0.0/0")))  # fmt: skip
    assert found["eth0"]["nameservers"] == {"addresses": ["10.200.255.254"], "search": ["vcluster"]}
    assert found["eth0"]["mtu"] == 1450 and found["eth0"]["match"] == {"macaddress": "52:54:00:00:00:01"}
    assert found["eth1"]["addresses"] == ["10.201.0.2/24", "fd70:636f:0:301::4:1/128"]
    assert [name for name, one in found.items() if "dhcp4" in one] == ["eth2"], "only the site's own network is asked"


def test_functions_of_ethernet_devices_come_after_other_interfaces_and_ask_the_sites_dhcp(tmp_path: Path) -> None:
    wire = FunctionFacts("wire", "0000:91:10.0", 1, None, None, "02:00:00:0c:00:01", 9000)
    node = replace(NODE, functions={1: (FunctionFacts("gpu", "0000:3b:00.0"), wire)})
    found = network_config.plan_function_interfaces(node, 1)
    first = len(network_config.plan_interfaces(node, 1))
    assert found == (network_config.Interface(f"eth{first}", "02:00:00:0c:00:01", 9000),)
    assert network_config.plan_function_interfaces(node, 0) == ()
    text = network_config.render_network_config(found)
    assert "subnets: [{type: dhcp4}]" in text and "mtu: 9000" in text and 'mac_address: "02:00:00:0c:00:01"' in text


@pytest.mark.parametrize(
    ("kind", "path", "lines"),
    [
        (
            "eni", "etc/network/interfaces.d/50-cloud-init",
            ["iface eth0 inet static", "address 10.200.0.2/16", "gateway 10.200.255.254"],
        ),
        (
            "networkd", "etc/systemd/network/10-cloud-init-eth0.network",
            ["DHCP=no", "Address=10.200.0.2/16", "Gateway=10.200.255.254"],
        ),
        (
            "network-manager", "etc/NetworkManager/system-connections/cloud-init-eth0.nmconnection",
            ["method=manual", "address1=10.200.0.2/16"],
        ),
    ],
)
def test_addresses_reach_every_other_way(tmp_path: Path, kind: str, path: str, lines: list[str]) -> None:
    text = convert(tmp_path, kind)[path]
    assert [line for line in lines if not re.search(rf"(?m)^\s*{re.escape(line)}$", text)] == []

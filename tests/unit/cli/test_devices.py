"""`pcocc node devices` of a node with made-up functions."""

import os
import pwd
from pathlib import Path

import pytest

from pcocc_runtime.cli import devices
from pcocc_runtime.cli import main as cli
from tests.fake_functions import write_card, write_ethernet, write_functions

POOL = "ib: {type: infiniband, settings: {host-device: mlx5_0, min-pkey: '0x2000', max-pkey: '0x2003', gres: 'nic:mlx5'}}\n"


@pytest.fixture
def device(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a device with three functions, which networks.yaml names."""
    (site / "networks.yaml").write_text(f"lan: {{type: ethernet}}\n{POOL}")
    found = write_functions(tmp_path / "sys", 3)
    monkeypatch.setattr(devices, "SYS", tmp_path / "sys")
    monkeypatch.setattr(devices, "_read_names", lambda interface: {1: "c2:cc:20:01:00:00:00:01"} if interface == "ib0" else {})
    monkeypatch.setattr(devices, "_user_of", lambda path: "alice" if path.endswith("22") else "-")
    return found


def test_functions_are_shown_with_their_lines_for_slurm(
    device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["node", "devices"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and [line.split() for line in out.splitlines()] == [
        ["DEVICE", "GRES", "FUNCTION", "ADDRESS", "DRIVER", "GROUP", "NUMA", "FILE", "USER", "GUID", "OR", "MAC"],
        ["mlx5_0", "-", "PF", "0000:81:00.0", "mlx5_core", "20", "1", "-", "-", "ec0d:9a03:00f1:2af4"],
        ["mlx5_0", "nic:mlx5", "0", "0000:81:00.1", "vfio-pci", "21", "1", "/dev/vfio/21", "-", "-"],
        ["mlx5_0", "nic:mlx5", "1", "0000:81:00.2", "vfio-pci", "22", "1", "/dev/vfio/22", "alice", "c2:cc:20:01:00:00:00:01"],
        ["mlx5_0", "nic:mlx5", "2", "0000:81:00.3", "vfio-pci", "23", "1", "/dev/vfio/23", "-", "-"],
        [],
        ["gres.conf:"],
        ["Name=nic", "Type=mlx5", "File=/dev/vfio/21,/dev/vfio/22,/dev/vfio/23"],
    ]


def test_a_function_that_cannot_be_given_away_is_told(
    device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (device / "virtfn1/driver").unlink()
    assert cli.main(["node", "devices"]) == 1
    out, err = capsys.readouterr()
    assert "gres.conf" not in out and ["mlx5_0", "nic:mlx5", "1", "0000:81:00.2", "-"] in [
        line.split()[:5] for line in out.splitlines()
    ]
    assert "(0000:81:00.2) is bound to no driver instead of vfio-pci\n" in err


def test_a_device_that_is_lost_is_named_and_the_others_are_not_concerned(
    device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (device / "virtfn1/config").write_bytes(b"\xff" * 64)
    assert cli.main(["node", "devices"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[3:5] for line in out.splitlines()[2:5]] == [
        ["0000:81:00.1", "vfio-pci"], ["0000:81:00.2", "lost"], ["0000:81:00.3", "vfio-pci"],
    ]
    assert err.count("error") == 1 and "(0000:81:00.2) does not answer any more: it has not come back from a reset" in err


def test_functions_of_ethernet_are_shown_with_their_addresses(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "networks.yaml").write_text("wire: {type: sriov-ethernet, settings: {host-device: ens1f0, gres: vf}}\n")
    (site / "resources.yaml").write_text("default: {networks: [wire], default: true}\n")
    write_ethernet(tmp_path / "sys", 2)
    monkeypatch.setattr(devices, "SYS", tmp_path / "sys")
    monkeypatch.setattr(devices, "_read_names", lambda interface: {0: f"02::1 VLAN 100 of {interface}"})
    assert cli.main(["node", "devices"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:4] == [
        "ens1f0 - PF 0000:91:00.0 igb 30 1 - - -",
        "ens1f0 vf 0 0000:91:10.0 vfio-pci 31 1 /dev/vfio/31 - 02::1 VLAN 100 of ens1f0",
        "ens1f0 vf 1 0000:91:10.1 vfio-pci 32 1 /dev/vfio/32 - -",
    ] and lines[-1] == "Name=vf File=/dev/vfio/31,/dev/vfio/32"


def test_devices_of_all_kinds_are_shown_in_the_order_of_gres_conf(
    device: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (site / "pcocc.yaml").open("a") as file:
        file.write("devices: {'gpu:a100': {ids: ['10de:20b2']}, 'gpu:h100': {addresses: ['0000:af:00.0']}}\n")
    with (site / "networks.yaml").open("a") as file:
        file.write("disk: {type: genericpci, settings: {host-device-addrs: ['5e:00.0'], host-driver: nvme}}\n")
        file.write("other: {type: host-infiniband, settings: {host-device: mlx5_9}}\n")
    for address, kind, group in (("3b:00.0", "10de:20b2", 40), ("3c:00.0", "10de:20b2", 41), ("5e:00.0", "144d:a80a", 42)):
        write_card(tmp_path / "sys", f"0000:{address}", kind, group)
    assert cli.main(["node", "devices"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[:4] for line in out.splitlines()[5:]] == [
        ["network", "disk", "pci", "0"],
        ["gpu:a100", "gpu:a100", "0", "0000:3b:00.0"], ["gpu:a100", "gpu:a100", "1", "0000:3c:00.0"],
    ]  # fmt: skip
    assert err.startswith("pcocc: error: ") and " has no InfiniBand device mlx5_9\n" in err and "gres.conf" not in out


def test_a_site_that_names_none_has_no_devices(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "networks.yaml").write_text("lan: {type: ethernet}\n")
    (site / "resources.yaml").write_text("default: {networks: [lan], default: true}\n")
    assert cli.main(["node", "devices"]) == 1
    assert "the site names no devices for VMs\n" in capsys.readouterr().err


def test_who_may_open_a_file_has_the_function(tmp_path: Path) -> None:
    path = tmp_path / "21"
    path.touch()
    mine = pwd.getpwuid(os.getuid()).pw_name
    assert (
        devices._user_of(str(path)) == ("-" if os.getuid() == 0 else mine)
        and devices._user_of(str(tmp_path / "22")) == "-"
    )

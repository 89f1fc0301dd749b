"""`pcocc node devices` of a node with made-up functions."""

import os
import pwd
from pathlib import Path

import pytest

from pcocc_runtime.cli import devices
from pcocc_runtime.cli import main as cli
from pcocc_runtime.networks import host_functions
from tests.fake_functions import write_functions

POOL = "ib: {type: infiniband, settings: {host-device: mlx5_0, min-pkey: '0x2000', max-pkey: '0x2003', gres: 'nic:mlx5'}}\n"


@pytest.fixture
def device(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a device with three functions, which networks.yaml names."""
    (site / "networks.yaml").write_text(f"lan: {{type: ethernet}}\n{POOL}")
    found = write_functions(tmp_path / "sys", 3)
    monkeypatch.setattr(
        devices, "read_devices", lambda names: host_functions.read_devices(names, tmp_path / "sys")
    )
    monkeypatch.setattr(devices, "_user_of", lambda path: "alice" if path.endswith("22") else "-")
    return found


def test_functions_are_shown_with_their_lines_for_slurm(
    device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["node", "devices"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and [line.split() for line in out.splitlines()] == [
        ["DEVICE", "FUNCTION", "ADDRESS", "DRIVER", "NUMA", "FILE", "USER"],
        ["mlx5_0", "0", "0000:81:00.1", "vfio-pci", "1", "/dev/vfio/21", "-"],
        ["mlx5_0", "1", "0000:81:00.2", "vfio-pci", "1", "/dev/vfio/22", "alice"],
        ["mlx5_0", "2", "0000:81:00.3", "vfio-pci", "1", "/dev/vfio/23", "-"],
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
    assert "gres.conf" not in out and ["mlx5_0", "1", "0000:81:00.2", "-"] in [
        line.split()[:4] for line in out.splitlines()
    ]
    assert "(0000:81:00.2) is bound to no driver instead of vfio-pci\n" in err


def test_a_site_without_infiniband_has_no_devices(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["node", "devices"]) == 1
    assert "there is no network of type infiniband\n" in capsys.readouterr().err


def test_who_may_open_a_file_has_the_function(tmp_path: Path) -> None:
    path = tmp_path / "21"
    path.touch()
    mine = pwd.getpwuid(os.getuid()).pw_name
    assert (
        devices._user_of(str(path)) == ("-" if os.getuid() == 0 else mine)
        and devices._user_of(str(tmp_path / "22")) == "-"
    )

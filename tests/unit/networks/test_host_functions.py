"""Devices and functions as /sys has them."""

from pathlib import Path

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.host_functions import ensure_bound, read_devices
from pcocc_runtime.networks.partitions import Function
from tests.fake_functions import write_functions


def test_functions_are_read_in_their_order(tmp_path: Path) -> None:
    write_functions(tmp_path, 11)
    [found] = read_devices(["mlx5_0"], tmp_path).values()
    places = [f"0000:81:{(number + 1) // 8:02x}.{(number + 1) % 8}" for number in range(11)]
    assert found.interface == "ib0" and found.functions == tuple(
        Function(number, place, "vfio-pci", str(21 + number), (), 1) for number, place in enumerate(places)
    )


def test_a_function_may_be_free_or_share_its_group(tmp_path: Path) -> None:
    path = write_functions(tmp_path, 2)
    (path / "virtfn0/driver").unlink()
    (path / "virtfn1/iommu_group/devices/0000:82:00.0").mkdir()
    first, second = read_devices(["mlx5_0"], tmp_path)["mlx5_0"].functions
    assert first.driver is None and first.others == () and second.others == ("0000:82:00.0",)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("rm -r class/infiniband", "has no InfiniBand device mlx5_0"),
        (
            "echo 1 > class/infiniband/mlx5_0/device/net/ib0/type",
            "mlx5_0 of .* has no interface for IP, which Linux needs to set GUIDs",
        ),
        ("rm class/infiniband/mlx5_0/device/virtfn*", "mlx5_0 of .* has no virtual functions"),
        (
            "rm class/infiniband/mlx5_0/device/virtfn1/iommu_group",
            "has no IOMMU, or does not use it: VMs cannot be given 0000:81:00.2",
        ),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, broken: str, said: str) -> None:
    import subprocess

    write_functions(tmp_path, 2)
    subprocess.run(["sh", "-ec", broken], cwd=tmp_path, check=True)
    with pytest.raises(NodeError, match=said):
        read_devices(["mlx5_0"], tmp_path)


def test_only_a_function_without_a_driver_is_bound(tmp_path: Path) -> None:
    path = write_functions(tmp_path, 3)
    (path / "virtfn1/driver").unlink()
    ensure_bound(["mlx5_0"], tmp_path)
    assert (path / "virtfn1/driver_override").read_text() == "vfio-pci"
    assert (tmp_path / "bus/pci/drivers_probe").read_text() == "0000:81:00.2"
    assert [(path / f"virtfn{number}/driver_override").exists() for number in range(3)] == [
        False,
        True,
        False,
    ]

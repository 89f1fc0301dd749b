"""A tree like /sys of a node with an InfiniBand device and its virtual functions, all bound to vfio-pci."""

import os
from pathlib import Path

_SLOT = "devices/pci0000:80/0000:80:01.0"


def _link(path: Path, to: Path) -> None:
    path.symlink_to(os.path.relpath(to, path.parent))  # as the kernel has them


def write_functions(sys: Path, count: int) -> Path:
    """Write the device mlx5_0, whose interface is ib0, with so many functions; return its directory."""
    device = sys / _SLOT / "0000:81:00.0"
    (device / "net/ib0").mkdir(parents=True)
    (device / "net/ib0/type").write_text("32\n")
    (sys / "class/infiniband/mlx5_0").mkdir(parents=True)
    _link(sys / "class/infiniband/mlx5_0/device", device)
    driver = sys / "bus/pci/drivers/vfio-pci"
    driver.mkdir(parents=True)
    for number in range(count):
        slot, function = divmod(number + 1, 8)
        one = sys / _SLOT / f"0000:81:{slot:02x}.{function}"
        group = sys / f"kernel/iommu_groups/{21 + number}"
        (group / "devices" / one.name).mkdir(parents=True)
        one.mkdir()
        (one / "numa_node").write_text("1\n")
        _link(one / "driver", driver)
        _link(one / "iommu_group", group)
        _link(device / f"virtfn{number}", one)
        (sys / "bus/pci/devices").mkdir(exist_ok=True)
        _link(sys / "bus/pci/devices" / one.name, one)
    return device

"""A tree like /sys of a node with an InfiniBand and an Ethernet device and their virtual functions, bound to vfio-pci."""

import errno
import os
from pathlib import Path

_SLOT = "devices/pci0000:80/0000:80:01.0"


def _link(path: Path, to: Path) -> None:
    path.symlink_to(os.path.relpath(to, path.parent))  # as the kernel has them


def write_ethernet(sys: Path, count: int, mtu: int = 1500) -> Path:
    """Write the Ethernet device of interface ens1f0, which is up, with so many functions; return its directory."""
    device = sys / _SLOT / "0000:91:00.0"
    one = device / "net/ens1f0"
    one.mkdir(parents=True)
    for name, text in (("type", "1"), ("flags", "0x1003"), ("mtu", mtu)):
        (one / name).write_text(f"{text}\n")
    (sys / "class/net").mkdir(parents=True, exist_ok=True)
    _link(sys / "class/net/ens1f0", one)
    _link(one / "device", device)
    write_pci(device, "8086:10c9", 30, sys, "igb")
    for number in range(count):
        _link(device / f"virtfn{number}", write_pci(sys / _SLOT / f"0000:91:10.{number}", "8086:10ca", 31 + number, sys))
    return device


def write_functions(sys: Path, count: int) -> Path:
    """Write the device mlx5_0, whose interface is ib0, with `count` functions; return its directory."""
    device = sys / _SLOT / "0000:81:00.0"
    (device / "net/ib0").mkdir(parents=True)
    (device / "net/ib0/type").write_text("32\n")
    (sys / "class/infiniband/mlx5_0").mkdir(parents=True)
    (sys / "class/infiniband/mlx5_0/node_guid").write_text("ec0d:9a03:00f1:2af4\n")
    _link(sys / "class/infiniband/mlx5_0/device", device)
    write_pci(device, "15b3:101b", 20, sys, "mlx5_core")
    for number in range(count):
        slot, function = divmod(number + 1, 8)
        one = sys / _SLOT / f"0000:81:{slot:02x}.{function}"
        write_pci(one, "15b3:101c", 21 + number, sys)
        _link(device / f"virtfn{number}", one)
    return device


def write_pci(one: Path, kind: str, group: int, sys: Path, driver: str = "vfio-pci", numa: int = 1) -> Path:
    """Write the PCI device of this directory, of a kind such as `10de:20b2`, in an IOMMU group; return the directory."""
    one.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("vendor", "device", "numa_node", "class"), (*kind.split(":"), numa, "030200"), strict=True):
        (one / name).write_text(f"{text}\n" if name == "numa_node" else f"0x{text}\n")
    (sys / f"bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
    (sys / f"kernel/iommu_groups/{group}/devices").mkdir(parents=True, exist_ok=True)
    (sys / "bus/pci/devices").mkdir(exist_ok=True)
    (one / "config").write_bytes(b"\xff\xff\xff\xff\x02\0\x10\0")  # as of a virtual function
    _link(one / "driver", sys / f"bus/pci/drivers/{driver}")
    _link(one / "iommu_group", sys / f"kernel/iommu_groups/{group}")
    _link(sys / f"kernel/iommu_groups/{group}/devices/{one.name}", one)
    _link(sys / "bus/pci/devices" / one.name, one)
    return one


def write_card(sys: Path, address: str, kind: str, group: int, driver: str = "vfio-pci", numa: int = 0) -> Path:
    """Write a device of this address on a bus of its own."""
    return write_pci(sys / f"devices/pci{address[:7]}/{address}", kind, group, sys, driver, numa)


def answer(sys: Path, path: Path, text: str) -> None:
    """Change the tree as Linux does when a text is written to a file of /sys about drivers; OSError where Linux has one."""
    devices, drivers = sys / "bus/pci/devices", sys / "bus/pci/drivers"
    if path.name == "driver_override":
        with path.open("w") as file:
            file.write(text)
    elif path.name == "unbind":
        if (devices / text / "driver").resolve() != path.parent.resolve():
            raise OSError(errno.ENODEV, "No such device", str(path))
        (devices / text / "driver").unlink()
    elif path == sys / "bus/pci/drivers_probe":
        one, wanted = devices / text, devices / text / "driver_override"
        if not (one / "driver").exists() and wanted.exists() and (drivers / wanted.read_text()).exists():
            _link(one.resolve() / "driver", drivers / wanted.read_text())
    else:
        raise OSError(errno.EACCES, "Permission denied", str(path))

"""Devices are bound to vfio-pci, in a made-up /sys that answers as Linux does."""

import errno
import os
from pathlib import Path

import pytest

from pcocc_runtime.networks import binding
from pcocc_runtime.networks.binding import ensure_bound
from pcocc_runtime.networks.functions import Stock
from pcocc_runtime.networks.host_functions import read_stocks
from pcocc_runtime.networks.kinds import DevicePool
from tests.fake_functions import answer, write_card

DISK = "144d:a80a"
POOL = DevicePool("nvme", ids=(DISK,), host_driver="nvme")
DRIVERS = ("vfio-pci", "nvme", "other", "nvme")


@pytest.fixture
def sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four disks: one bound to vfio-pci, two to nvme and one to another driver; writes answer. Nobody runs slurmd."""
    found = tmp_path / "sys"
    for place, driver in enumerate(DRIVERS):
        write_card(found, f"0000:{place + 1:02x}:00.0", DISK, place, driver)
    monkeypatch.setattr(Path, "write_text", lambda path, text: answer(found, path, text))
    (tmp_path / "proc/1").mkdir(parents=True)
    with (tmp_path / "proc/1/comm").open("w") as file:
        file.write("systemd\n")
    return found


def stocks(sys: Path, pool: DevicePool = POOL) -> tuple[Stock, ...]:
    return read_stocks((), [pool], {}, sys)


def bind(sys: Path, pool: DevicePool = POOL) -> list[str]:
    return [str(fault) for fault in ensure_bound(stocks(sys, pool), sys, sys.parent / "proc")]


def drivers(sys: Path) -> list[str | None]:
    return [one.driver for one in stocks(sys)[0].functions]


def test_what_the_site_names_passes_to_vfio_and_nothing_else(sys: Path) -> None:
    assert bind(sys) == [] and drivers(sys) == ["vfio-pci", "vfio-pci", "other", "vfio-pci"]
    overridden = [(sys / f"bus/pci/devices/0000:0{place}:00.0/driver_override").exists() for place in range(1, 5)]
    assert overridden == [False, True, False, True]
    assert bind(sys) == []  # again


def test_without_a_driver_of_the_nodes_only_what_has_none_is_bound(sys: Path) -> None:
    (sys / "bus/pci/devices/0000:03:00.0/driver").unlink()
    assert bind(sys, DevicePool("nvme", ids=(DISK,))) == []
    assert drivers(sys) == ["vfio-pci", "nvme", "vfio-pci", "nvme"]


def write_use(sys: Path, kind: str, name: str, address: str) -> Path:
    """Write a disk or an interface of a device."""
    place = (sys / "bus/pci/devices" / address).resolve() / kind / name
    place.mkdir(parents=True)
    (sys / "class" / kind).mkdir(parents=True, exist_ok=True)
    (sys / "class" / kind / name).symlink_to(place)
    return place


def test_a_mounted_disk_stays_the_nodes(sys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_use(sys, "block", "nvme0n1", "0000:02:00.0")
    (write_use(sys, "block", "nvme0n1p1", "0000:02:00.0") / "partition").touch()
    write_use(sys, "block", "nvme1n1", "0000:04:00.0")
    opened: list[tuple[str, int]] = []

    def claim(path: str, flags: int) -> int:
        opened.append((path, flags & os.O_EXCL))
        if path == "/dev/nvme0n1":
            raise OSError(errno.EBUSY, "Device or resource busy")
        return os.dup(0)

    monkeypatch.setattr(binding.os, "open", claim)
    said = bind(sys)
    monkeypatch.undo()
    assert said == ["0000:02:00.0 is the node's own: disk nvme0n1 is mounted, or part of something"]
    assert opened == [("/dev/nvme0n1", os.O_EXCL), ("/dev/nvme1n1", os.O_EXCL)]
    assert drivers(sys) == ["vfio-pci", "nvme", "other", "vfio-pci"]


def test_an_interface_that_is_up_stays_the_nodes(sys: Path) -> None:
    for address, flags in (("0000:02:00.0", "0x1003"), ("0000:04:00.0", "0x1002")):
        with (write_use(sys, "net", f"eth{address[6]}", address) / "flags").open("w") as file:
            file.write(f"{flags}\n")
    assert bind(sys) == ["0000:02:00.0 is the node's own: interface eth2 is up"]
    assert drivers(sys) == ["vfio-pci", "nvme", "other", "vfio-pci"]


def test_under_slurmd_nothing_loses_its_driver(sys: Path) -> None:
    with (sys.parent / "proc/1/comm").open("w") as file:
        file.write("slurmd\n")
    (sys / "bus/pci/devices/0000:03:00.0/driver").unlink()
    [first, second] = bind(sys)
    assert first.startswith("0000:02:00.0 is driven by nvme, and slurmd runs") and second.startswith("0000:04:00.0 is driven")
    assert drivers(sys) == ["vfio-pci", "nvme", "vfio-pci", "nvme"]


def test_without_the_module_nothing_is_touched(sys: Path) -> None:
    (sys / "bus/pci/devices/0000:01:00.0/driver").unlink()
    (sys / "bus/pci/drivers/vfio-pci").rmdir()
    assert [one.partition(",")[0] for one in bind(sys)] == [
        f"0000:0{place}:00.0 cannot be bound to vfio-pci" for place in (1, 2, 4)
    ]
    assert drivers(sys) == [None, "nvme", "other", "nvme"]

"""Devices of a node pass from its own drivers to vfio-pci, at the node's start, before slurmd looks for their files."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import DRIVER, Function, Stock

_UP = 1  # IFF_UP, linux/if.h


def ensure_bound(stocks: Iterable[Stock], sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> list[NodeError]:
    """Bind to vfio-pci what has no driver, or the driver that its stock says; nothing else. Return what could not be.

    What the node itself uses stays its own, and so does everything that has a driver while slurmd runs.
    """
    faults = list[NodeError]()
    for stock in stocks:
        for one in stock.functions:
            try:
                if one.driver in (None, stock.host_driver) and one.driver != DRIVER:
                    _bind(one, sys, proc)
            except NodeError as error:
                faults.append(error)
            except OSError as error:
                faults.append(NodeError(f"{one.address} cannot be bound to {DRIVER}: {error}", "look into dmesg(1)"))
    return faults


def _bind(one: Function, sys: Path, proc: Path) -> None:
    """Have one device bound to vfio-pci, and no other of its kind.

    Documentation/ABI/testing/sysfs-bus-pci in the kernel: driver_override.
    """
    if not (sys / "bus/pci/drivers" / DRIVER).exists():
        raise NodeError(f"{one.address} cannot be bound to {DRIVER}, which is not loaded", hint=f"modprobe {DRIVER}")
    place = sys / "bus/pci/devices" / one.address
    if one.driver:
        _ensure_idle(one, sys, proc)
        (place / "driver/unbind").write_text(one.address)
    (place / "driver_override").write_text(DRIVER)
    (sys / "bus/pci/drivers_probe").write_text(one.address)


def _ensure_idle(one: Function, sys: Path, proc: Path) -> None:
    """Raise NodeError while slurmd runs, or the node itself uses a device."""
    if _runs_slurmd(proc):
        message = f"{one.address} is driven by {one.driver}, and slurmd runs, whose jobs may use it"
        raise NodeError(message, hint="stop slurmd before; pcocc-devices.service does all this before slurmd starts")
    used = ", ".join(_find_uses((sys / "bus/pci/devices" / one.address).resolve(), sys))
    if used:
        raise NodeError(
            f"{one.address} is the node's own: {used}",
            hint="take it out of devices in pcocc.yaml or networks.yaml, or have the node not use it",
        )


def _runs_slurmd(proc: Path) -> bool:
    for path in proc.glob("[0-9]*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if path.read_text() == "slurmd\n":
                return True
    return False


def _find_uses(device: Path, sys: Path) -> Iterator[str]:
    """Yield which disks and network interfaces of a PCI device are in use."""
    for path in sorted((sys / "class/block").glob("*")):
        if path.resolve().is_relative_to(device) and not (path / "partition").exists() and _is_held(path.name):
            yield f"disk {path.name} is mounted, or part of something"
    for path in sorted((sys / "class/net").glob("*")):
        if path.resolve().is_relative_to(device) and int((path / "flags").read_text(), 16) & _UP:
            yield f"interface {path.name} is up"


def _is_held(name: str) -> bool:
    """Tell whether somebody has claimed a disk or a part of it: a file system, swap, LVM, RAID (open(2), O_EXCL)."""
    try:
        os.close(os.open(f"/dev/{name.replace('!', '/')}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENOMEDIUM)
    return False

"""Machines with many devices: QEMU has a slot for each, and the guest finds them all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime.documents.cluster import Drive, Group, Mount
from pcocc_runtime.documents.queues import Queue
from pcocc_runtime.qemu import slots
from pcocc_runtime.qemu.arguments import Export, Nic, VmPlan, plan_qemu_argv
from pcocc_runtime.qemu.disks import Disk
from tests.qemu.vm import APPEND, DATA, GUEST, StartVm
from tests.unit.qemu.plans import PLAN
from tests.waiting import limit


def read_devices(directory: Path, plan: VmPlan) -> list[dict[str, Any]]:
    """Start QEMU, paused, and return what it says of the devices on the root bus."""
    (directory / "seed").write_bytes(bytes(4096))
    ours, theirs = socket.socketpair()
    paths = {
        key: str(directory / key)
        for key in ("seed", "qmp_path", "console_path", "console_log", "agent_path", "display_path")
    }
    argv = plan_qemu_argv(replace(plan, qmp_fd=theirs.fileno(), **paths))  # type: ignore[arg-type]
    argv = [f"hubport,id={word[7:].partition(',')[0]},hubid=0" if word.startswith("tap,id=") else word for word in argv]
    with ours, theirs:
        ours.sendall(b"".join(b'{"execute": "%s"}' % word for word in (b"qmp_capabilities", b"query-pci", b"quit")))
        done = subprocess.run(
            [*argv, "-S"], pass_fds=[theirs.fileno()], capture_output=True, text=True, check=False, timeout=limit(60)
        )
        theirs.close()
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in ours.makefile()]
    [buses] = [line["return"] for line in lines if isinstance(line.get("return"), list)]
    return [device for bus in buses if bus["bus"] == 0 for device in bus["devices"]]


def make_plan(machine: str, disks: int, nics: int, mounts: int, display: str | None) -> VmPlan:
    return replace(
        PLAN, machine=machine, display=display, disks=(Disk("null-co://", "raw"),) * disks,
        nics=tuple(Nic((Queue(0),), f"52:54:00:00:00:{number:02x}", 1450) for number in range(nics)),
        exports=tuple(Export(f"t{number}", "/usr", True) for number in range(mounts)),
    )  # fmt: skip


@pytest.mark.parametrize("machine", ["q35", "pc"])
@pytest.mark.parametrize(
    ("disks", "nics", "mounts", "display"),
    [(1, 1, 0, None), (1, 1, 18, "vnc"), (1, 1, 19, None), (1, 0, 26, None), (16, 0, 12, None), (16, 10, 64, "vnc"),
     (1, 1, slots.MOST_MOUNTS, None)],
)  # fmt: skip
def test_every_device_has_a_place(tmp_path: Path, machine: str, disks: int, nics: int, mounts: int, display: str | None) -> None:
    plan = make_plan(machine, disks, nics, mounts, display)
    root = read_devices(tmp_path, plan)
    ours = disks + 1 + nics + mounts + 3 + (2 if display else 0)
    behind = mounts + 3 if ours > 24 else 0
    assert [device["qdev_id"] for device in root if device["qdev_id"] == "more"] == ["more"] * bool(behind)
    used = ours - behind + bool(behind)
    ports = [device["slot"] for device in root if device["qdev_id"].startswith("plug")]
    assert ports == ([30] * 4 if machine == "q35" and used < 30 else []), "for what a running VM is given"
    assert len({device["slot"] for device in root}) == used + bool(ports) + 2  # of the chipset


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_the_first_devices_are_where_they_are_without_mounts(tmp_path: Path, machine: str) -> None:
    def read_slots(mounts: int) -> list[tuple[int, int]]:
        found = read_devices(tmp_path, make_plan(machine, 3, 2, mounts, None))
        return [(device["slot"], device["id"]["device"]) for device in found if device["class_info"]["class"] in (0x100, 0x200)]

    assert read_slots(0) == read_slots(3) == read_slots(40) and len(read_slots(0)) == 6


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_a_guest_finds_sixty_four_directories(start: StartVm, tmp_path: Path, machine: str) -> None:
    drives = []
    for number in range(3):
        path = tmp_path / f"drive{number}"
        path.write_bytes(b"drive%d".ljust(1 << 20, b"\0") % number)
        os.chown(path, 1, 1)
        drives.append(Drive(f"{DATA}/{path.name}"))
    mounts = tuple(Mount(f"t{number}", DATA, readonly=True) for number in range(64))
    boot = {"kernel": f"{GUEST}/vmlinux", "initrd": f"{GUEST}/initrd", "append": APPEND}
    vm = start(Group("t", 1, mounts=mounts, persistent=tuple(drives), machine=machine, **boot)).boot()
    tags = vm.run("cd /sys/bus/virtio/drivers/9pnet_virtio; for one in virtio*; do tr '\\0' '\\n' <$one/mount_tag; done; cd /")
    assert sorted(tags.split()) == sorted(mount.tag for mount in mounts)
    vm.run("mkdir /m")
    for tag in ("t0", "t63"):
        assert vm.run(f"mount -t 9p -o trans=virtio,version=9p2000.L {tag} /m && ls /m/drive0; umount /m") == "/m/drive0\n"
    assert vm.run("for one in a b c; do head -c 6 /dev/vd$one; done") == "drive0drive1drive2"

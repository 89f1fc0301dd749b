"""Devices are near the guest's NUMA nodes that they belong to: QEMU accepts the arguments, and Linux in the guest sees the
devices there.

This host has no devices to give away: emulated PCI Express devices take their place.
"""

from __future__ import annotations

from pathlib import Path

from pcocc_runtime.documents.cluster import Group
from pcocc_runtime.documents.hardware import GuestNode
from pcocc_runtime.qemu.functions import PassedFunction, plan_passing
from tests.machines import pretend
from tests.qemu.vm import StartVm

# the nodes on which Linux sees the emulated cards, 8086:10d3
LOOK = "cd /sys/bus/pci/devices; for one in *; do ! grep -q 0x10d3 $one/device || cat $one/numa_node; done; cd /"
NODES = (GuestNode(0, (0, 1, 2, 3)), GuestNode(1, (4, 5, 6, 7)))


def test_a_guest_finds_devices_on_the_nodes_that_they_are_near(start: StartVm, tmp_path: Path) -> None:
    part = pretend(tmp_path, "eight", range(8))
    functions = [PassedFunction(f"0000:0{place}:00.0", numa) for place, numa in enumerate((1, 0, 1, None))]
    planned = plan_passing(functions, NODES, "q35")
    words = [*planned.plain, *planned.behind]
    stand_ins = [word.replace(f"vfio-pci,host={word[14:26]}", "e1000e,romfile=") for word in words]
    assert sum("e1000e" in word for word in stand_ins) == 4
    vm = start(Group("t", 1, cpus=8, custom_args=tuple(stand_ins)), part=part).boot()
    assert sorted(map(int, vm.run(LOOK).split())) == [-1, 0, 1, 1]

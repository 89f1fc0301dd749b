"""Where in the guest PCI functions of the host appear; tests/qemu/test_functions.py tries it with QEMU and a guest."""

from dataclasses import replace

import pytest

from pcocc_runtime.documents.hardware import GuestNode
from pcocc_runtime.qemu.arguments import plan_qemu_argv
from pcocc_runtime.qemu.functions import PassedFunction, plan_passing
from tests.unit.qemu.plans import PLAN

TWO = (GuestNode(2, (0, 1), 512), GuestNode(3, (2, 3), 512))
GPU, NIC, DISK = PassedFunction("0000:3b:00.0", 2), PassedFunction("0000:81:00.1", 3), PassedFunction("0000:af:00.0", 3)


@pytest.mark.parametrize(("nodes", "machine"), [((), "q35"), (TWO[:1], "q35"), (TWO, "pc"), (TWO, "microvm")])
def test_a_guest_of_one_node_has_them_on_its_root_bus(nodes: tuple[GuestNode, ...], machine: str) -> None:
    found = plan_passing((GPU, NIC), nodes, machine)
    assert found.plain == ("-device", "vfio-pci,host=0000:3b:00.0", "-device", "vfio-pci,host=0000:81:00.1")
    assert found.behind == () and found.slots == 2


def test_each_is_behind_a_port_of_its_node() -> None:
    found = plan_passing((NIC, GPU, DISK), TWO, "q35,usb=off")
    assert found.behind[1::2] == (
        "pxb-pcie,id=near0,bus=pcie.0,bus_nr=128,numa_node=0",
        "pcie-root-port,id=port1,bus=near0,chassis=1", "vfio-pci,host=0000:3b:00.0,bus=port1",
        "pxb-pcie,id=near1,bus=pcie.0,bus_nr=130,numa_node=1",
        "pcie-root-port,id=port2,bus=near1,chassis=2", "vfio-pci,host=0000:81:00.1,bus=port2",
        "pcie-root-port,id=port3,bus=near1,chassis=3", "vfio-pci,host=0000:af:00.0,bus=port3",
    )  # fmt: skip
    assert {*found.behind[::2]} == {"-device"} and found.plain == () and found.slots == 2


def test_what_is_on_no_node_of_the_guest_is_on_the_root_bus() -> None:
    far, unknown = PassedFunction("0000:01:00.0", 0), PassedFunction("0000:02:00.0")
    found = plan_passing((far, GPU, unknown), TWO, "q35")
    assert found.behind[-1] == "vfio-pci,host=0000:3b:00.0,bus=port1"
    assert found.plain[1::2] == ("vfio-pci,host=0000:01:00.0", "vfio-pci,host=0000:02:00.0")
    assert found.slots == 3


def test_expanders_are_the_last_words_of_all() -> None:
    topology = replace(PLAN.topology, nodes=TWO)
    plan = replace(PLAN, topology=topology, functions=(GPU, PassedFunction("0000:01:00.0", 0)), custom_args=("-device", "edu"))
    argv = plan_qemu_argv(plan)
    assert argv[-8:-6] == ["-device", "edu"] and argv[-5].startswith("pxb-pcie,")
    assert argv[-1] == "vfio-pci,host=0000:3b:00.0,bus=port1"
    assert "vfio-pci,host=0000:01:00.0" in argv[:-8]

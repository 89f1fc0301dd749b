"""A plan of a VM's QEMU, for tests to change."""

from pcocc_runtime.documents.queues import Queue
from pcocc_runtime.qemu.arguments import Nic, VmPlan
from pcocc_runtime.qemu.disks import Disk
from pcocc_runtime.qemu.topology import plan_flat

PLAN = VmPlan(
    name="job12-vm0", uuid="00000000-0000-0000-0000-000000000001", qemu="/usr/bin/qemu-system-x86_64", accel="tcg",
    topology=plan_flat(2, "tests"),
    memory=300, disks=(Disk("/scratch/vm0.qcow2"),), seed="/run/seed.iso", qmp_fd=9, qmp_path="/run/qmp",
    console_path="/run/console",
    console_log="/run/console.log", agent_path="/run/agent", nics=(Nic((Queue(5),), "52:54:00:00:00:00", 1450),),
)  # fmt: skip

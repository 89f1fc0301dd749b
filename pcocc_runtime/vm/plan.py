"""The plan of one VM's QEMU, from what its task has, what its node has found out, and what its template says."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from pcocc_runtime import naming
from pcocc_runtime.documents.abilities import Abilities
from pcocc_runtime.documents.cluster import Group
from pcocc_runtime.documents.hardware import Allocation, Topology
from pcocc_runtime.documents.node import NodeFacts
from pcocc_runtime.documents.queues import Queue
from pcocc_runtime.errors import RequestError
from pcocc_runtime.guest import network_config
from pcocc_runtime.qemu.arguments import Export, Kernel, Nic, SharedFs, Uefi, VmPlan
from pcocc_runtime.qemu.disks import Disk, machine_kind, plan_io
from pcocc_runtime.qemu.functions import PassedFunction
from pcocc_runtime.qemu.huge_pages import ReadFree, plan_pages
from pcocc_runtime.qemu.memory import Backing, guest_memory
from pcocc_runtime.qemu.topology import plan_flat, plan_topology

# custom-args that QEMU would combine with pcocc's own
_TAKEN = {f"{dash}{word}" for dash in ("-", "--") for word in ("smp", "numa", "m")}


@dataclass(frozen=True, slots=True)
class Task:
    """This task as Slurm describes it."""

    job: int
    rank: int
    cpus: int
    memory: int
    interfaces: tuple[tuple[Queue, ...], ...]
    probe_fd: int | None
    kvm_fd: int | None


@dataclass(frozen=True, slots=True)
class VmFiles:
    """Disks in their order, the seed, UEFI's files; `locks` are descriptors to stay open as long as QEMU runs."""

    disks: tuple[Disk, ...]
    seed: str
    firmware: Uefi | None
    locks: tuple[int, ...]


class Hardware(NamedTuple):
    """What a guest gets of `part`, which is what its task holds; `memory` in MiB, `note` for its user."""

    part: Allocation
    topology: Topology
    memory: int
    backing: Backing
    abilities: Abilities
    note: str = ""


def plan_hardware(
    task: Task, node: NodeFacts, group: Group, part: Allocation, abilities: Abilities, read_free: ReadFree
) -> Hardware:
    """Return the guest's CPUs, NUMA nodes and memory; RequestError when too little remains for it."""
    daemons = sum(mount.type == "virtiofs" for mount in group.mounts)
    memory = guest_memory(task.memory or group.memory or 512, node.accel, daemons)
    vcpus, why = count_vcpus(task, group), _find_obstacle(group)
    topology = plan_flat(vcpus, why) if why else plan_topology(
        part, task.cpus, group.emulator_cores, len(node.here.ranks) == 1, clusters="modules" in abilities.has
    )  # fmt: skip
    pages = plan_pages(group.hugepages or node.hugepages, part, topology, memory, read_free, group.template)
    backing = Backing(pages.size, group.memory_prealloc, group.memory_lock)
    return Hardware(part, pages.topology, pages.memory, backing, abilities, pages.note)


def _find_obstacle(group: Group) -> str:
    """Return why a template's guests cannot have the host's topology, an empty text when they can."""
    if not group.bind_vcpus:
        return "bind-vcpus: false leaves the vCPUs to the kernel"
    if not machine_kind(group.machine).startswith(("q35", "pc")):
        return f"machine-type {group.machine} has no NUMA nodes and dies"
    own = next((word for word in group.custom_args if word in _TAKEN), None)
    return f"custom-args have {own}" if own else ""


def plan_vm(
    task: Task, node: NodeFacts, group: Group, directory: PurePath, made: VmFiles, hardware: Hardware,
    filesystems: tuple[SharedFs, ...], qmp_fd: int, kvm_fd: int | None = None, ways: tuple[str, ...] = ()
) -> VmPlan:
    """Combine task, node's findings and template into the plan of one QEMU.

    `kvm_fd` is /dev/kvm opened by root; `ways` are those of reading and writing disks, the best first.
    """
    interfaces = network_config.plan_interfaces(node, task.rank)
    return VmPlan(
        name=f"job{task.job}-{naming.vm_name(task.rank)}",
        uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"pcocc-{task.job}-{task.rank}")),
        qemu=group.qemu_bin or node.qemu,
        accel=node.accel,
        kvm_fd=kvm_fd,
        topology=hardware.topology,
        memory=hardware.memory,
        backing=hardware.backing,
        abilities=hardware.abilities,
        io=plan_io(hardware.topology.shape.cpus, ways, hardware.abilities.has),
        topoext=hardware.part.topoext,
        disks=made.disks,
        seed=made.seed,
        qmp_fd=qmp_fd,
        qmp_path=str(directory / "qmp"), console_path=str(directory / "console"),
        console_log=str(PurePath(node.scratch, f"{naming.vm_name(task.rank)}.console.log")),
        agent_path=str(directory / "agent.qemu"),  # the keeper alone connects to it
        nics=tuple(Nic(queues, one.mac, one.mtu) for queues, one in zip(task.interfaces, interfaces, strict=True)),
        exports=tuple(Export(one.tag, one.path, one.readonly) for one in group.mounts if one.type == "9p"),
        filesystems=filesystems,
        machine=group.machine, cpu_model=group.cpu_model or node.cpu_model,
        disk_model=group.disk_model,
        firmware=made.firmware,
        kernel=Kernel(group.kernel, group.initrd, group.append) if group.kernel else None,
        display=group.display,
        display_path=str(directory / (group.display or "")),
        nic_model=group.nic_model,
        custom_args=group.custom_args,
        functions=tuple(PassedFunction(one.address, one.numa) for one in node.functions.get(task.rank, ())),
    )


def count_vcpus(task: Task, group: Group) -> int:
    """Return the number of the guest's CPUs: the task's, less what the template keeps for QEMU."""
    if group.emulator_cores >= task.cpus:
        raise RequestError(
            f"emulator-cores: {group.emulator_cores} of template {group.template!r} leaves none of the"
            f" {task.cpus} CPUs to the guest",
            f"ask for more CPUs: -c {group.emulator_cores + 1}",
        )
    return task.cpus - group.emulator_cores

"""QEMU's argument list from a VM's plan: one small pure function per device family (qemu-system(1))."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pcocc_runtime.documents.abilities import PLAIN, Abilities
from pcocc_runtime.documents.hardware import Topology
from pcocc_runtime.documents.queues import Queue
from pcocc_runtime.qemu import slots
from pcocc_runtime.qemu.asking import KVM_SET
from pcocc_runtime.qemu.cpu import plan_caches, plan_cpu, plan_smp
from pcocc_runtime.qemu.disks import (
    ONE_QUEUE,
    Disk,
    DiskIo,
    disk_id,
    escape,
    first_partition,
    machine_kind,
    plan_disks,
)
from pcocc_runtime.qemu.functions import PassedFunction, plan_passing
from pcocc_runtime.qemu.memory import ORDINARY, Backing, plan_memory
from pcocc_runtime.qemu.plugs import plan_plugs

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface: the open queues of a tap, and the MAC the guest sees."""

    queues: tuple[Queue, ...]
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Export:
    """A host directory exported over 9p."""

    tag: str
    path: str
    readonly: bool


@dataclass(frozen=True, slots=True)
class SharedFs:
    """A host directory exported by a virtiofsd at the other end of a connected socket."""

    tag: str
    fd: int


@dataclass(frozen=True, slots=True)
class Uefi:
    """UEFI firmware: its code, and this VM's own copy of the variables."""

    code: str
    variables: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel booted without the disk's boot loader."""

    path: str
    initrd: str | None = None
    append: str | None = None


@dataclass(frozen=True, slots=True)
class VmPlan:
    """All that decides one VM's QEMU: paths on the node, `memory` in MiB, `topoext` a flag of the host's CPU.

    `incoming` are the options of one that does not boot, but goes on from stored memory.
    """

    name: str
    uuid: str
    qemu: str
    accel: str
    topology: Topology
    memory: int
    seed: str
    qmp_fd: int
    qmp_path: str
    console_path: str
    console_log: str
    agent_path: str
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    exports: tuple[Export, ...] = ()
    filesystems: tuple[SharedFs, ...] = ()
    machine: str = "q35"
    cpu_model: str | None = None
    disk_model: str = "virtio"
    firmware: Uefi | None = None
    kernel: Kernel | None = None
    display: str | None = None
    display_path: str = ""
    nic_model: str = "virtio-net-pci"
    custom_args: tuple[str, ...] = ()
    kvm_fd: int | None = None
    topoext: bool = False
    functions: tuple[PassedFunction, ...] = ()
    backing: Backing = ORDINARY
    abilities: Abilities = PLAIN
    io: DiskIo = ONE_QUEUE
    incoming: tuple[str, ...] = ()


def plan_qemu_argv(plan: VmPlan) -> list[str]:
    """Return the whole command line, program first."""
    passing = plan_passing(plan.functions, plan.topology.nodes, plan.machine)
    fixed = slots.count_fixed(plan.disk_model, len(plan.disks), len(plan.nics) + passing.slots, plan.display)
    movable = len(plan.exports) + len(plan.filesystems) + 3  # those of _helpers
    places = slots.plan_addresses(fixed, movable)
    return [
        plan.qemu, *_identity(plan), *_accelerator(plan), *_machine(plan), *_monitors(plan), *_console(plan),
        *_firmware(plan), *_kernel(plan),
        *plan_disks(plan.disk_model, plan.machine, plan.disks, plan.seed, plan.io),
        *[word for index, nic in enumerate(plan.nics) for word in _nic(plan, index, nic)],
        *passing.plain,
        *slots.plan_bridge(fixed, movable),
        *[word for index, export in enumerate(plan.exports) for word in _export(index, export, next(places))],
        *[
            word
            for index, shared in enumerate(plan.filesystems)
            for word in _filesystem(index, shared, next(places))
        ],
        *_helpers(plan, places), *plan_plugs(plan.machine, slots.count_used(fixed, movable), plan.custom_args),
        *_display(plan),
        *plan.custom_args, *passing.behind, *plan.incoming,
    ]


def _identity(plan: VmPlan) -> list[str]:
    return [
        "-name", f"guest={escape(plan.name)},debug-threads=on", "-uuid", plan.uuid, "-nodefaults", "-no-user-config",
        "-display", "none", "-sandbox", SANDBOX, "-action", "panic=pause,shutdown=pause",
    ]  # fmt: skip


def _accelerator(plan: VmPlan) -> list[str]:
    if plan.accel != "kvm":
        return ["-accel", "tcg,thread=multi,tb-size=64"]
    if plan.kvm_fd is None:
        return ["-accel", "kvm"]
    return ["-add-fd", f"fd={plan.kvm_fd},set={KVM_SET}", "-accel", f"kvm,device=/dev/fdset/{KVM_SET}"]


def _machine(plan: VmPlan) -> list[str]:
    # other machines have neither. A HPET keeps QEMU's main thread ticking when the guest has long turned to KVM's timer
    ours = machine_kind(plan.machine).startswith(("q35", "pc"))
    hpet = ",hpet=off" if ours and plan.accel == "kvm" and "hpet=" not in plan.machine else ""
    vmport = ",vmport=off" if ours else ""
    has, shared = plan.abilities.has, bool(plan.filesystems)
    objects, memory, nodes = plan_memory(plan.memory, plan.topology, plan.backing, shared, has)
    caches = plan_caches(plan.topology, has)
    return [
        *objects,
        "-machine", f"{plan.machine}{vmport}{hpet},dump-guest-core=off{memory}{caches}",
        "-cpu", plan_cpu(plan.accel, plan.cpu_model, plan.topology, plan.topoext),
        "-smp", plan_smp(plan.topology), "-m", f"size={plan.memory}M", *nodes,
        "-rtc", "base=utc,driftfix=slew",
    ]  # fmt: skip


def _monitors(plan: VmPlan) -> list[str]:
    words = []
    for name, place in (("keeper", f"fd={plan.qmp_fd}"), ("qmp", f"path={escape(plan.qmp_path)},server=on,wait=off")):
        words += ["-chardev", f"socket,id={name},{place}"]
        if "monitor-object" in plan.abilities.has:  # from 11.1 on, which warns of -mon
            words += ["-object", f"monitor-qmp,id=monitor-{name},chardev={name}"]
        else:
            words += ["-mon", f"chardev={name},mode=control"]
    return words


def _console(plan: VmPlan) -> list[str]:
    log = f"logfile={escape(plan.console_log)},logappend=on"
    console = f"socket,id=console,path={escape(plan.console_path)},server=on,wait=off,{log}"
    return ["-chardev", console, "-serial", "chardev:console"]


def _firmware(plan: VmPlan) -> list[str]:
    if plan.firmware is None:
        return []
    return [
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={escape(plan.firmware.code)}",
        "-drive", f"if=pflash,unit=1,format=raw,file={escape(plan.firmware.variables)}",
    ]  # fmt: skip


def _kernel(plan: VmPlan) -> list[str]:
    kernel = plan.kernel
    if kernel is None:
        return []
    append = (
        kernel.append
        if kernel.append is not None
        else f"console=ttyS0 root={first_partition(plan.disk_model)}"
    )
    return ["-kernel", kernel.path, *(["-initrd", kernel.initrd] if kernel.initrd else []), "-append", append]


def _nic(plan: VmPlan, index: int, nic: Nic) -> list[str]:
    mtu = f",host_mtu={nic.mtu}" if plan.nic_model.startswith("virtio") else ""
    count = len(nic.queues)
    # interrupts: two for each queue, and two for the device
    plural, many = ("s", f",mq=on,vectors={2 * count + 2}") if count > 1 else ("", "")
    taps, vhosts = ":".join(str(one.tap) for one in nic.queues), [str(one.vhost) for one in nic.queues if one.vhost]
    vhost = f",vhost=on,vhostfd{plural}={':'.join(vhosts)}" if vhosts else ""
    return ["-netdev", f"tap,id=net{index},fd{plural}={taps}{vhost}",
            "-device", f"{plan.nic_model},netdev=net{index},mac={nic.mac}{mtu}{many},romfile="]  # fmt: skip


def _export(index: int, export: Export, place: str) -> list[str]:
    readonly = ",readonly=on" if export.readonly else ""
    return [
        "-fsdev",
        f"local,id=fs{index},path={escape(export.path)},security_model=none,multidevs=remap{readonly}",
        "-device", f"virtio-9p-pci,fsdev=fs{index},mount_tag={escape(export.tag)}{place}",
    ]  # fmt: skip


def _filesystem(index: int, shared: SharedFs, place: str) -> list[str]:
    return [
        "-chardev", f"socket,id=virtiofs{index},fd={shared.fd}",
        "-device", f"vhost-user-fs-pci,chardev=virtiofs{index},tag={escape(shared.tag)}{place}",
    ]  # fmt: skip


def _helpers(plan: VmPlan, places: Iterator[str]) -> list[str]:
    return [
        "-object", "rng-random,id=rng,filename=/dev/urandom", "-device",
        f"virtio-rng-pci,rng=rng{next(places)}",
        "-device", f"virtio-serial-pci{next(places)}",
        "-chardev", f"socket,id=agent,path={escape(plan.agent_path)},server=on,wait=off",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        "-device", f"pvpanic-pci{next(places)}",
    ]  # fmt: skip


def _display(plan: VmPlan) -> list[str]:
    if plan.display is None:
        return []
    path = escape(plan.display_path)
    # a tablet, so that the guest's pointer follows the user's
    devices = ["-device", "VGA", "-device", "qemu-xhci", "-device", "usb-tablet"]
    if plan.display == "vnc":
        return [*devices, "-vnc", f"unix:{path}"]
    return [
        *devices, "-spice", f"unix=on,addr={path},disable-ticketing=on",
        "-chardev", "spicevmc,id=vdagent,name=vdagent", "-device",
        "virtserialport,chardev=vdagent,name=com.redhat.spice.0",
    ]  # fmt: skip


def describe_devices(plan: VmPlan) -> tuple[str, ...]:
    """Return a line for each disk and interface: its queues, and who serves them."""
    threads = [plan.io.threads_of(disk) if plan.disk_model == "virtio" else 0 for disk in plan.disks]
    queues = plan.io.queues if plan.disk_model != "ide" else 1
    disks = (
        f"{disk_id(place)}: {queues} queues, {count} threads of its own, {plan.io.way_of(disk)}"
        for place, (disk, count) in enumerate(zip(plan.disks, threads, strict=True))
    )
    nics = (
        f"eth{place}: {len(nic.queues)} queues, {'the kernel (vhost)' if nic.queues[0].vhost else 'QEMU itself'}"
        for place, nic in enumerate(plan.nics)
    )
    return (*disks, *nics)

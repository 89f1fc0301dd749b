"""QEMU's argument list from a VM's plan: one small pure function per device family (qemu-system(1))."""

from __future__ import annotations

from dataclasses import dataclass

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface: an open tap and the MAC the guest sees."""

    fd: int
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Export:
    """A host directory exported over 9p."""

    tag: str
    path: str
    readonly: bool


@dataclass(frozen=True, slots=True)
class VmPlan:
    """All that decides one VM's QEMU; paths are on the node, `memory` is the guest's in MiB."""

    name: str
    uuid: str
    qemu: str
    accel: str
    cpus: int
    memory: int
    disk: str | None
    seed: str
    qmp_fd: int
    qmp_path: str
    console_path: str
    console_log: str
    agent_path: str
    nics: tuple[Nic, ...] = ()
    exports: tuple[Export, ...] = ()
    machine: str = "q35"
    cpu_model: str | None = None
    disk_model: str = "virtio-blk-pci"
    disk_cache: str = "unsafe"
    nic_model: str = "virtio-net-pci"
    custom_args: tuple[str, ...] = ()


def plan_argv(plan: VmPlan) -> list[str]:
    """Return the whole command line, program first."""
    return [
        plan.qemu,
        *_identity(plan),
        *_machine(plan),
        *_monitors(plan),
        *_console(plan),
        *_boot_disk(plan),
        *_seed(plan),
        *[word for index, nic in enumerate(plan.nics) for word in _nic(plan, index, nic)],
        *[word for index, export in enumerate(plan.exports) for word in _export(index, export)],
        *_helpers(plan),
        *plan.custom_args,
    ]


def _identity(plan: VmPlan) -> list[str]:
    return [
        "-name", f"guest={_escape(plan.name)},debug-threads=on", "-uuid", plan.uuid, "-nodefaults", "-no-user-config",
        "-display", "none", "-sandbox", SANDBOX, "-action", "panic=pause,shutdown=pause",
    ]  # fmt: skip


def _machine(plan: VmPlan) -> list[str]:
    accel = "kvm" if plan.accel == "kvm" else "tcg,thread=multi,tb-size=64"
    model = plan.cpu_model or ("host" if plan.accel == "kvm" else "qemu64")
    return [
        "-machine", f"{plan.machine},vmport=off,dump-guest-core=off", "-accel", accel, "-cpu", model,
        "-smp", f"cpus={plan.cpus}", "-m", f"size={plan.memory}M", "-rtc", "base=utc,driftfix=slew",
    ]  # fmt: skip


def _monitors(plan: VmPlan) -> list[str]:
    return [
        "-chardev", f"socket,id=keeper,fd={plan.qmp_fd}", "-mon", "chardev=keeper,mode=control",
        "-chardev", f"socket,id=qmp,path={_escape(plan.qmp_path)},server=on,wait=off", "-mon", "chardev=qmp,mode=control",
    ]  # fmt: skip


def _console(plan: VmPlan) -> list[str]:
    console = f"socket,id=console,path={_escape(plan.console_path)},server=on,wait=off,logfile={_escape(plan.console_log)},logappend=off"
    return ["-chardev", console, "-serial", "chardev:console"]


def _boot_disk(plan: VmPlan) -> list[str]:
    if plan.disk is None:
        return []
    drive = (
        f"file={_escape(plan.disk)},format=qcow2,if=none,id=disk0,cache={plan.disk_cache},discard=unmap,werror=stop,rerror=stop"
    )
    return ["-drive", drive, "-device", f"{plan.disk_model},drive=disk0,bootindex=1"]


def _seed(plan: VmPlan) -> list[str]:
    drive = f"file={_escape(plan.seed)},format=raw,if=none,id=seed,readonly=on"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=seed"]


def _nic(plan: VmPlan, index: int, nic: Nic) -> list[str]:
    mtu = f",host_mtu={nic.mtu}" if plan.nic_model.startswith("virtio") else ""
    return ["-netdev", f"tap,id=net{index},fd={nic.fd}",
            "-device", f"{plan.nic_model},netdev=net{index},mac={nic.mac}{mtu},romfile="]  # fmt: skip


def _export(index: int, export: Export) -> list[str]:
    readonly = ",readonly=on" if export.readonly else ""
    return [
        "-fsdev", f"local,id=fs{index},path={_escape(export.path)},security_model=none,multidevs=remap{readonly}",
        "-device", f"virtio-9p-pci,fsdev=fs{index},mount_tag={_escape(export.tag)}",
    ]  # fmt: skip


def _helpers(plan: VmPlan) -> list[str]:
    return [
        "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,path={_escape(plan.agent_path)},server=on,wait=off",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        "-device", "pvpanic-pci",
    ]  # fmt: skip


def _escape(text: str) -> str:
    return text.replace(",", ",,")  # QEMU's own escape inside option values

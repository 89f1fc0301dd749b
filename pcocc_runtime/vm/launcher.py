"""The task of a boot step: prepares one VM with its user's rights and becomes QEMU.

Everything that can fail does so before the exec, with a sentence on the task's stderr.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pcocc_runtime import naming
from pcocc_runtime.documents import wire
from pcocc_runtime.documents.boot import BOOT_FILE, Boot, Keys, decode_boot, encode_boot
from pcocc_runtime.documents.cluster import Cluster, Group, decode_cluster, encode_cluster
from pcocc_runtime.documents.command_line import COMMAND_FILE, encode_command_line
from pcocc_runtime.documents.disks import DISKS_FILE, encode_disks
from pcocc_runtime.documents.hardware import TOPOLOGY_FILE, VmTopology, encode_topology
from pcocc_runtime.documents.login import HOST_KEY_FILE, KEY_FILE
from pcocc_runtime.documents.members import MEMBERS_FILE, Members, encode_members
from pcocc_runtime.documents.node import MAX_NODE, NodeFacts, decode_node
from pcocc_runtime.documents.queues import parse_interfaces
from pcocc_runtime.documents.reach import address_of
from pcocc_runtime.documents.vm import KEPT_FILE, VmFacts, encode_vm
from pcocc_runtime.documents.vm_state import STORED_FIRST_FILE
from pcocc_runtime.errors import NodeError, PcoccError, one_line, render
from pcocc_runtime.guest import seed
from pcocc_runtime.qemu.arguments import SharedFs, VmPlan, describe_devices, plan_qemu_argv
from pcocc_runtime.qemu.cpu import ensure_model, plan_cpu
from pcocc_runtime.qemu.disks import disk_id
from pcocc_runtime.system import accounts, children, drop, files, installed, regular, tree_removal
from pcocc_runtime.system.hardware import read_free_pages, read_own_cpus, read_part
from pcocc_runtime.system.watch import start_watch
from pcocc_runtime.vm.abilities import find_abilities
from pcocc_runtime.vm.accelerator import choose_accelerator
from pcocc_runtime.vm.async_io import find_ways
from pcocc_runtime.vm.files import leave_new_keys, make_files, start_filesystems, virtiofs_log
from pcocc_runtime.vm.interfaces import find_descriptors, plan_queues
from pcocc_runtime.vm.plan import Hardware, Task, VmFiles, plan_hardware, plan_vm

if TYPE_CHECKING:
    from pcocc_runtime.vm.restart import Restart

KEEPER = (f"{installed.LIBEXEC}/keeper",)

# scancel -s sends these to every step of a job; QEMU inherits the mask (tried). See
# docs/decisions/004-sigterm.md.
_MEANT_FOR_PROGRAMS = {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}


def main() -> int:
    """Run the launcher; returns only when the VM could not be started."""
    environ = dict(os.environ)
    try:
        launch(read_task(environ), environ)
    except PcoccError as error:
        where = environ.get("SLURMD_NODENAME", os.uname().nodename)
        error.where = error.where or f"{naming.vm_name(int(environ.get('SLURM_PROCID', '0')))} on {where}"
        print(render(error), file=sys.stderr)
    except OSError as error:
        name = naming.vm_name(int(environ.get("SLURM_PROCID", "0")))
        print(f"pcocc: error: {name} on {os.uname().nodename}: {error}", file=sys.stderr)
    return 1


def read_task(environ: dict[str, str]) -> Task:
    """Return the facts of this task from the environment Slurm and the plugin made."""
    if wire.ENV_TAP_FDS not in environ:
        raise NodeError(
            "the pcocc plugin did not run for this task",
            hint=(
                "plugstack.conf of this node must name pcocc.so, and slurmd be restarted after it was"
                " installed"
            ),
        )
    cpus = int(environ.get("SLURM_CPUS_PER_TASK") or "1")
    probe, kvm = (environ.get(name, "") for name in (wire.ENV_PROBE_FD, wire.ENV_KVM_FD))
    return Task(
        job=int(environ["SLURM_JOB_ID"]),
        rank=int(environ["SLURM_PROCID"]),
        cpus=cpus,
        memory=int(environ.get(wire.ENV_TASK_MEMORY) or "0"),
        interfaces=parse_interfaces(environ[wire.ENV_TAP_FDS]),
        probe_fd=int(probe) if probe else None,
        kvm_fd=int(kvm) if kvm.isdigit() else None,
    )


def launch(task: Task, environ: dict[str, str]) -> None:
    """Make the VM's files, start its keeper, and exec QEMU."""
    node = read_node(task.job)
    boot = decode_boot(environ.get(wire.ENV_BOOT, ""))
    keys, cluster = boot.keys, decode_cluster(boot.cluster)
    group = cluster.group_of(task.rank)
    task = size_task(task, group)
    node, kvm_fd = choose_accelerator(node, group.qemu_bin or node.qemu, task.kvm_fd)
    hardware = read_own_hardware(task, node, group, kvm_fd)
    restart = find_stored_vm(cluster, task.rank, group.qemu_bin or node.qemu, node.accel)
    if restart is not None:
        hardware = restart.keep_shape(hardware)
    if hardware.note:
        tell(task, node, hardware.note)
    task = take_queues(task, node, group.nic_model, hardware.topology.shape.cpus)
    if group.memory_lock:
        allow_lock(hardware.memory, group.template)
    directory, watch = make_vm_directory(task, node, cluster, keys)
    made = make_files(task.job, task.rank, node, cluster, keys, directory, lambda text: tell(task, node, text), restart)
    filesystems = start_filesystems(group.mounts, directory, lambda tag: virtiofs_log(node, task.rank, tag))
    ours, theirs = socket.socketpair()
    qmp, ways = theirs.fileno(), find_ways(hardware.abilities.has)
    plan = plan_vm(task, node, group, directory, made, hardware, filesystems, qmp, kvm_fd, ways)
    if restart is not None:
        plan = replace(plan, uuid=restart.record.uuid, incoming=restart.options)
    argv = plan_qemu_argv(plan)
    if restart is not None:
        restart.ensure_same(argv)
    ensure_pinnable(plan)
    leave_facts(directory, node, group, plan, hardware, argv)
    facts = describe_vm(task, node, group, plan, ours, directory, watch, restart)
    facts = facts._replace(stored=mark_stored_first(directory, cluster))
    if boot.former is not None and facts.address:
        leave_new_keys(task.job, task.rank, node, directory, keys, boot.former, facts.user)
    inherited = [*find_inherited(task, made, filesystems, kvm_fd, restart), qmp]
    become_qemu(task, argv, facts, ours, inherited)


def read_own_hardware(task: Task, node: NodeFacts, group: Group, kvm_fd: int | None) -> Hardware:
    """Return the hardware of the guest, on this task's part of the node."""
    model = group.cpu_model or node.cpu_model
    abilities = find_abilities(node, group.qemu_bin or node.qemu, model, kvm_fd)
    ensure_model(model, node.accel, abilities.lacks, group.template)
    return plan_hardware(task, node, group, read_part(read_own_cpus()), abilities, read_free_pages)


def leave_facts(
    directory: PurePath, node: NodeFacts, group: Group, plan: VmPlan, hardware: Hardware, argv: Sequence[str]
) -> None:
    """Write what other processes will want to know of this VM into its directory."""
    Path(plan.console_log).unlink(missing_ok=True)  # that of a VM before this one
    os.symlink(plan.console_log, directory / "console.log")
    files.replace_file(directory / COMMAND_FILE, encode_command_line(argv))
    if group.on_power_off == "keep":
        files.replace_file(directory / KEPT_FILE, b"")
    files.replace_file(directory / TOPOLOGY_FILE, encode_topology(describe_hardware(node, plan, hardware)))
    files.replace_file(directory / DISKS_FILE, encode_disks(group, plan.disks, node.scratch))


def mark_stored_first(directory: PurePath, cluster: Cluster) -> bool:
    """Tell whether the VM is stored when its job ends, which commands in it must learn from its directory."""
    stored = cluster.checkpoints is not None and cluster.checkpoints.at_end
    if stored:
        files.replace_file(directory / STORED_FIRST_FILE, b"")
    return stored


def find_inherited(
    task: Task, made: VmFiles, filesystems: Sequence[SharedFs], kvm_fd: int | None, restart: Restart | None
) -> list[int]:
    """Return the descriptors of this process that QEMU goes on to use."""
    taps = (fd for queues in task.interfaces for fd in find_descriptors(queues))
    mine = (kvm_fd, restart.memory if restart is not None else None)
    return [*taps, *made.locks, *(one.fd for one in filesystems), *(fd for fd in mine if fd is not None)]


def find_stored_vm(cluster: Cluster, rank: int, qemu: str, accel: str) -> Restart | None:
    """Return a VM's part of the checkpoint that the cluster goes on from, None where it boots."""
    if cluster.restart is None:
        return None
    from pcocc_runtime.vm.restart import open_restart

    return open_restart(Path(cluster.restart), rank, qemu, accel)


def tell(task: Task, node: NodeFacts, text: str) -> None:
    """Write a note: the starter of the boot step shows at once what comes on stdout."""
    print(f"pcocc: {naming.vm_name(task.rank)} on {node.name}: {one_line(text)}", flush=True)


def read_node(job: int) -> NodeFacts:
    """Return what root's helper found out about this node and job."""
    return decode_node(regular.read_start(naming.job_dir(job) / naming.NODE_FILE, MAX_NODE + 1), job)


def keep_boot(task: Task, cluster: Cluster, keys: Keys) -> None:
    """Keep what a checkpoint stores of the job: the cluster with the sizes that its tasks really have, and the keys."""
    sized = tuple(
        group if group.full_node else replace(group, cpus=task.cpus, memory=task.memory or group.memory)
        for group in cluster.groups
    )
    boot = Boot(encode_cluster(Cluster(sized, first_job=cluster.first_job)), keys)
    files.replace_file(naming.job_dir(task.job) / BOOT_FILE, encode_boot(boot).encode())


def make_vm_directory(task: Task, node: NodeFacts, cluster: Cluster, keys: Keys) -> tuple[PurePath, int]:
    """Make the VM's directory, and what every step here reads of keys and addresses; return it and its watch."""
    base = naming.job_dir(task.job)
    files.replace_file(base / KEY_FILE, keys.user.encode())
    files.replace_file(base / HOST_KEY_FILE, f"{keys.host_public}\n{keys.other_hosts}".encode())
    login = accounts.read_account(os.getuid()).pw_name
    members = Members(
        networks=node.reach,
        ports=node.forwards,
        users=tuple((group.count, group.command_user or login) for group in cluster.groups),
        vms=node.vm_count,
        nodes=node.nodes,
        boot_timeout=node.boot_timeout,
    )
    files.replace_file(base / MEMBERS_FILE, encode_members(members))
    if task.rank == 0:
        keep_boot(task, cluster, keys)
    directory = base / naming.vm_name(task.rank)
    tree_removal.remove_tree(directory)
    files.ensure_directory(directory, 0o700)
    return directory, start_watch(directory)


def size_task(task: Task, group: Group) -> Task:
    """Return the task, with the CPUs and memory that it really has if its template takes whole nodes."""
    if not group.full_node:
        return task
    from pcocc_runtime.vm import host_memory

    return replace(
        task, cpus=len(os.sched_getaffinity(0)), memory=task.memory or host_memory.read_memory_limit()
    )


def take_queues(task: Task, node: NodeFacts, model: str, vcpus: int) -> Task:
    """Return the task with only the queues that its guest uses: the kernel would send packets to the others, too."""
    used = plan_queues(task.interfaces, vcpus, model, node.accel)
    for fd in used.left:
        os.close(fd)
    if used.refused:
        why = os.strerror(used.refused)
        tell(task, node, f"/dev/vhost-net cannot be opened ({why}): QEMU passes the packets itself, which is slower")
    return replace(task, interfaces=used.interfaces)


def allow_lock(memory: int, template: str) -> None:
    """Raise the limit of locked memory, which QEMU inherits; NodeError when too little is allowed."""
    import resource

    _soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard != resource.RLIM_INFINITY and hard >> 20 <= memory:
        raise NodeError(
            f"memory-lock of template {template!r} needs {memory} MiB or more, but a task may lock only "
            f"{hard >> 20} MiB here (RLIMIT_MEMLOCK)",
            "the admins can allow it with LimitMEMLOCK=infinity for slurmd, and "
            "PropagateResourceLimitsExcept=MEMLOCK in slurm.conf",
        )
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def describe_hardware(node: NodeFacts, plan: VmPlan, hardware: Hardware) -> VmTopology:
    """Return the plan that the operation @topology compares with the QEMU that this process becomes."""
    cpu = plan_cpu(plan.accel, plan.cpu_model, plan.topology, plan.topoext)
    binds = "host-nodes" in plan.abilities.has
    page, devices = plan.backing.page, describe_devices(plan)
    return VmTopology(os.getpid(), node.accel, cpu, page, hardware.part, plan.topology, binds, devices)


def explain_accelerator(node: NodeFacts, plan: VmPlan) -> str:
    """Return why the VM has its accelerator, and for an emulated guest which CPU it gets."""
    cpu = plan_cpu(plan.accel, plan.cpu_model, plan.topology, plan.topoext).partition(",")[0]
    return node.accel_why if plan.accel == "kvm" else f"{node.accel_why}; its CPU is QEMU's {cpu}"


def describe_vm(
    task: Task, node: NodeFacts, group: Group, plan: VmPlan, qmp: socket.socket, directory: PurePath,
    watch: int, restart: Restart | None
) -> VmFacts:
    """Return what the keeper needs to know."""
    return VmFacts(
        job=task.job,
        rank=task.rank,
        node=node.name,
        pid=os.getpid(),
        qmp=qmp.fileno(),
        probe=task.probe_fd,
        watch=watch,
        address=(address_of(node.reach, task.rank) if task.probe_fd is not None else None) or "",
        user=group.command_user or accounts.read_account(os.getuid()).pw_name,
        timeout=node.boot_timeout,
        directory=str(directory),
        accel=node.accel,
        accel_why=explain_accelerator(node, plan),
        kvm_expected=node.kvm_expected,
        disks={disk_id(index): disk.path for index, disk in enumerate(plan.disks)},
        cpus=[*plan.topology.cpus],
        emulator=[*plan.topology.emulator],
        grace=node.shutdown_grace if group.persistent else 0,
        drives_grace=node.shutdown_grace,
        agent=str(directory / "agent"),
        agent_port=plan.agent_path,
        console=plan.console_log,
        console_size=node.console_log,
        mounts=seed.plan_guest_mounts(group.mounts),
        keep=group.on_power_off == "keep",
        logs=[
            *(virtiofs_log(node, task.rank, mount.tag) for mount in group.mounts if mount.type == "virtiofs"),
            f"{node.scratch}/vm{task.rank}.virtiofs.log",  # of what it is given later
        ],
        incoming=restart.source if restart else "",
    )


def ensure_pinnable(plan: VmPlan) -> None:
    """Raise the limit up to which a QEMU with devices can pin its guest's memory; slurmd sets the highest value.

    NodeError when that is too low.
    """
    most = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if plan.functions and most != resource.RLIM_INFINITY and most < plan.memory << 20:
        message = f"a VM with devices must pin {plan.memory} MiB of memory, but this node allows {most >> 20} MiB"
        raise NodeError(message, hint="set LimitMEMLOCK=infinity in slurmd.service")
    if plan.functions:
        # Slurm has set it to the limit of the host where the job was submitted
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))


def become_qemu(
    task: Task, argv: list[str], facts: VmFacts, qmp: socket.socket, inherited: list[int]
) -> None:
    """Fork the keeper, then exec QEMU, which never sees the signals that are meant for programs.

    SIGTERM is blocked in it, and its keeper acts on that: commands that run in the VM end first.
    """
    if not os.access(argv[0], os.X_OK):
        raise NodeError(
            f"{argv[0]} is not installed",
            hint="install qemu-system-x86 there, or set qemu in /etc/pcocc/pcocc.yaml",
        )
    keep = [fd for fd in (facts.qmp, facts.probe, facts.watch) if fd is not None]
    signal.pthread_sigmask(signal.SIG_BLOCK, _MEANT_FOR_PROGRAMS | {signal.SIGTERM})
    drop.die_with_parent()
    children.start_keeper([*KEEPER, encode_vm(facts)], keep=keep, after=facts.qmp)
    qmp.close()
    for fd in inherited:
        os.set_inheritable(fd, True)
    for ours in (task.probe_fd, task.kvm_fd):
        if ours is not None and ours not in inherited:
            os.close(ours)
    sys.stdout.flush()
    os.execve(argv[0], argv, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"})

"""The task of a boot step: prepares one VM with its user's rights and becomes QEMU.

Everything that can fail does so before the exec, with a sentence on the task's stderr.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from pcocc_runtime import naming
from pcocc_runtime.documents.boot import BOOT_VARIABLE, decode_boot
from pcocc_runtime.documents.cluster import Cluster, Group, decode_cluster
from pcocc_runtime.documents.disks import DISKS_FILE, render_facts
from pcocc_runtime.documents.reach import address_of
from pcocc_runtime.errors import NodeError, PcoccError, RequestError, one_line, render
from pcocc_runtime.guest import network_config, seed
from pcocc_runtime.qemu.arguments import Export, Kernel, Nic, SharedFs, VmPlan, plan_qemu_argv
from pcocc_runtime.qemu.disks import disk_id
from pcocc_runtime.qemu.memory import guest_memory
from pcocc_runtime.system import accounts, children, files, trees
from pcocc_runtime.vm.files import VmFiles, make_files, start_filesystems

KEEPER = (str(Path(__file__).resolve().parents[4] / "libexec/pcocc/keeper"),)

# scancel -s sends these to every step of a job; QEMU inherits the mask (tried). See docs/decisions/004-sigterm.md.
_MEANT_FOR_PROGRAMS = {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}


@dataclass(frozen=True, slots=True)
class Task:
    """This task as Slurm describes it."""

    job: int
    rank: int
    cpus: int
    memory: int
    tap_fds: tuple[int, ...]
    probe_fd: int | None


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
    if "PCOCC_TAP_FDS" not in environ:
        raise NodeError(
            "the pcocc plugin did not run for this task",
            hint="plugstack.conf of this node must name pcocc.so, and slurmd be restarted after it was installed",
        )
    cpus = int(environ.get("SLURM_CPUS_PER_TASK") or "1")
    fds = [int(word) for word in environ["PCOCC_TAP_FDS"].split(",") if word]
    probe = environ.get("PCOCC_PROBE_FD", "")
    return Task(
        job=int(environ["SLURM_JOB_ID"]),
        rank=int(environ["SLURM_PROCID"]),
        cpus=cpus,
        memory=int(environ.get("PCOCC_TASK_MEMORY") or "0"),
        tap_fds=tuple(fds),
        probe_fd=int(probe) if probe else None,
    )


def launch(task: Task, environ: dict[str, str]) -> None:
    """Make the VM's files, start its keeper, and exec QEMU."""
    node = read_node(task.job)
    encoded, raw_keys = decode_boot(environ.get(BOOT_VARIABLE, ""))
    cluster = decode_cluster(encoded)
    keys = seed.Keys(**raw_keys)
    group = cluster.group_of(task.rank)
    task = size_task(task, group)
    directory = make_vm_directory(task, node, cluster, keys)
    made = make_files(task.job, task.rank, node, cluster, keys, directory, lambda text: tell(task, node, text))
    filesystems = start_filesystems(group.mounts, directory)
    ours, theirs = socket.socketpair()
    plan = plan_vm(task, node, group, directory, made, filesystems, theirs.fileno())
    argv = plan_qemu_argv(plan)
    files.replace_file(directory / "qemu.json", json.dumps(argv).encode())
    files.replace_file(directory / DISKS_FILE, render_facts(group, plan.disks, node["scratch"]))
    facts = describe_vm(task, node, group, plan, ours, directory)
    inherited = [*task.tap_fds, *made.locks, *(one.fd for one in filesystems), theirs.fileno()]
    become_qemu(task, argv, facts, ours, inherited)


def tell(task: Task, node: dict[str, Any], text: str) -> None:
    """Say what is no error: the starter of the boot step shows what comes on stdout at once."""
    print(f"pcocc: {naming.vm_name(task.rank)} on {node['node']}: {one_line(text)}", flush=True)


def read_node(job: int) -> dict[str, Any]:
    """Return what root's helper found out about this node and job."""
    node = files.read_json(naming.job_dir(job) / "node.json")
    if not isinstance(node, dict):
        raise NodeError(f"the networks of job {job} were not set up on this node", hint="look into slurmd's log here")
    if node["accel"] == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        node["accel"], node["accel_why"] = "tcg", "/dev/kvm may not be opened by you"
    return node


def make_vm_directory(task: Task, node: dict[str, Any], cluster: Cluster, keys: seed.Keys) -> PurePath:
    """Make the VM's directory and what every attaching step of this node reads: key and addresses."""
    base = naming.job_dir(task.job)
    files.replace_file(base / "key", keys.user.encode())
    login = accounts.read_account(os.getuid()).pw_name
    facts = {
        "networks": node["reach"],
        "ports": node["reverse_nat"],
        "users": [[group.count, group.command_user or login] for group in cluster.groups],
        "vms": node["vms"],
        "nodes": node["nodes"],
        "boot_timeout": node["boot_timeout"],
    }
    files.replace_file(base / "cluster.json", json.dumps(facts).encode())
    directory = base / naming.vm_name(task.rank)
    trees.remove_tree(directory)
    files.ensure_directory(directory, 0o700)
    return directory


def size_task(task: Task, group: Group) -> Task:
    """Return the task with the CPUs and memory it really has, where its template takes whole nodes."""
    if not group.full_node:
        return task
    from pcocc_runtime.vm import host_memory

    return replace(task, cpus=len(os.sched_getaffinity(0)), memory=task.memory or host_memory.read_memory_limit())


def plan_vm(
    task: Task, node: dict[str, Any], group: Group, directory: PurePath, made: VmFiles,
    filesystems: tuple[SharedFs, ...], qmp_fd: int,
) -> VmPlan:
    """Combine the task, the node's findings and the template into the plan of one QEMU."""
    interfaces = network_config.plan_interfaces(node, task.rank)
    total = task.memory or group.memory or 512
    return VmPlan(
        name=f"job{task.job}-{naming.vm_name(task.rank)}",
        uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"pcocc-{task.job}-{task.rank}")),
        qemu=group.qemu_bin or node["qemu"],
        accel=node["accel"],
        cpus=count_vcpus(task, group),
        memory=guest_memory(total, node["accel"], len(filesystems)),
        disks=made.disks,
        seed=made.seed,
        qmp_fd=qmp_fd,
        qmp_path=str(directory / "qmp"),
        console_path=str(directory / "console"),
        console_log=str(directory / "console.log"),
        agent_path=str(directory / "agent"),
        nics=tuple(Nic(fd, one.mac, one.mtu) for fd, one in zip(task.tap_fds, interfaces, strict=True)),
        exports=tuple(Export(one.tag, one.path, one.readonly) for one in group.mounts if one.type == "9p"),
        filesystems=filesystems,
        machine=group.machine,
        cpu_model=group.cpu_model,
        disk_model=group.disk_model,
        firmware=made.firmware,
        kernel=Kernel(group.kernel, group.initrd, group.append) if group.kernel else None,
        display=group.display,
        display_path=str(directory / (group.display or "")),
        nic_model=group.nic_model,
        custom_args=group.custom_args,
    )


def count_vcpus(task: Task, group: Group) -> int:
    """Return the number of the guest's CPUs: the task's, less what the template keeps for QEMU."""
    if group.emulator_cores >= task.cpus:
        raise RequestError(
            f"emulator-cores: {group.emulator_cores} of template {group.template!r} leaves the guest none of {task.cpus} CPUs",
            f"ask for more CPUs: -c {group.emulator_cores + 1}",
        )
    return task.cpus - group.emulator_cores


def describe_vm(
    task: Task, node: dict[str, Any], group: Group, plan: VmPlan, qmp: socket.socket, directory: PurePath
) -> dict[str, Any]:
    """Return what the keeper has to know."""
    address = (address_of(node["reach"], task.rank) if task.probe_fd is not None else None) or ""
    return {
        "job": task.job, "rank": task.rank, "node": node["node"], "pid": os.getpid(), "qmp": qmp.fileno(),
        "probe": task.probe_fd, "address": address, "user": group.command_user or accounts.read_account(os.getuid()).pw_name,
        "timeout": node["boot_timeout"], "directory": str(directory),
        "accel": node["accel"], "accel_why": node["accel_why"],
        "disks": {disk_id(index): disk.path for index, disk in enumerate(plan.disks)},
        "cpus": plan.cpus if group.bind_vcpus else 0, "emulator_cores": group.emulator_cores,
        "grace": node["shutdown_grace"] if group.persistent else 0, "agent": plan.agent_path,
    }  # fmt: skip


def become_qemu(task: Task, argv: list[str], facts: dict[str, Any], qmp: socket.socket, inherited: list[int]) -> None:
    """Fork the keeper, then exec QEMU, which never sees the signals that are meant for programs.

    SIGTERM it answers by ending in order, unless its guest has to power off first: then the keeper sees to it.
    """
    if not os.access(argv[0], os.X_OK):
        raise NodeError(f"{argv[0]} is not installed", hint="install qemu-system-x86 there, or set qemu in /etc/pcocc/pcocc.yaml")
    keep = [fd for fd in (qmp.fileno(), task.probe_fd) if fd is not None]
    signal.pthread_sigmask(signal.SIG_BLOCK, _MEANT_FOR_PROGRAMS | ({signal.SIGTERM} if facts["grace"] else set()))
    children.die_with_parent()
    children.start_keeper([*KEEPER, json.dumps(facts)], keep=keep, after=qmp.fileno())
    qmp.close()
    for fd in inherited:
        os.set_inheritable(fd, True)
    if task.probe_fd is not None:
        os.close(task.probe_fd)
    sys.stdout.flush()
    os.execve(argv[0], argv, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"})

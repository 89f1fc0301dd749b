"""The frozen cluster document: what a job's virtual cluster is, fixed when the job is submitted.

It travels in the job's environment as base64 of zlib of JSON. The user can forge it: root trusts nothing of it.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

from pcocc_runtime.documents.codec import parse_document, render_document
from pcocc_runtime.errors import RequestError

CLUSTER_VERSION = 1
MAX_ENCODED = 120 * 1024  # Linux takes no environment string over 128 KiB (MAX_ARG_STRLEN, execve(2))
MAX_JSON = 8 * 1024 * 1024
MAX_USER_DATA = 64 * 1024
ARRAY_TASK = "%a"  # in paths that were typed: the number of the array's task, as in sbatch(1)'s patterns


@dataclass(frozen=True, slots=True)
class Mount:
    """A host directory exported to the VMs under a tag."""

    tag: str
    path: str
    type: str = "9p"
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk image of the user's own, written in place by the VM."""

    path: str
    cache: str = "writeback"
    mmp: str = "yes"
    backup: str | None = None
    format: str = "raw"


@dataclass(frozen=True, slots=True)
class Group:
    """VMs made from the same template; `memory` is that of the task in MiB, 0 for Slurm's default.

    `origin` names the revision that `image` is of, REPO:NAME@REV; None for a plain file. `task_user_data` is the
    path of a user-data file of each task of an array, which is read when that boots; `task_user_data_forced`: it is
    passed on whatever is wrong with it.
    """

    template: str
    count: int
    resource_set: str = "default"
    task_user_data: str | None = None
    task_user_data_forced: bool = False
    # rendered from templates/settings.py by `make settings`
    image: str | None = None
    origin: str | None = None
    cpus: int = 1
    memory: int = 0
    user_data: str | None = None
    instance_id: str | None = None
    mounts: tuple[Mount, ...] = ()
    persistent: tuple[Drive, ...] = ()
    devices: tuple[tuple[str, int], ...] = ()
    display: str | None = None
    custom_args: tuple[str, ...] = ()
    qemu_bin: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    append: str | None = None
    nic_model: str = "virtio-net-pci"
    machine: str = "q35"
    cpu_model: str | None = None
    disk_model: str = "virtio"
    disk_cache: str = "unsafe"
    emulator_cores: int = 0
    bind_vcpus: bool = True
    hugepages: str | None = None
    memory_prealloc: bool = False
    memory_lock: bool = False
    full_node: bool = False
    on_power_off: str = "end"
    firmware: str = "bios"
    command_user: str | None = None
    # end


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a cluster is stored without being told to, and when: each `every` seconds (0: not so), and near its end.

    `before` is how many seconds before its job's end, 0 for an estimate.
    """

    directory: str
    every: int = 0
    at_end: bool = False
    before: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """The groups of a virtual cluster; VM ranks run through them in order.

    `restart` is the directory of the checkpoint that they go on from, None where they boot. `first_job` is then the
    number of the job that has booted them, which is in their instance-ids.
    """

    groups: tuple[Group, ...]
    restart: str | None = None
    checkpoints: Checkpoints | None = None
    first_job: int | None = None

    @property
    def vm_count(self) -> int:
        """Return the number of VMs of the cluster."""
        return sum(group.count for group in self.groups)

    def group_of(self, rank: int) -> Group:
        """Return the group VM `rank` belongs to; RequestError when there is no such VM."""
        if rank >= 0:
            first = 0
            for group in self.groups:
                first += group.count
                if rank < first:
                    return group
        raise RequestError(f"there is no vm{rank} in a cluster of {self.vm_count} VMs")


def encode_cluster(cluster: Cluster) -> str:
    """Return `cluster` as one word of ASCII text; RequestError when it is too long to travel."""
    data = render_document(cluster, CLUSTER_VERSION).encode()
    text = base64.b64encode(zlib.compress(data, 9)).decode()
    if len(text) > MAX_ENCODED or len(data) > MAX_JSON:
        raise RequestError(
            f"the description of this virtual cluster is {len(text) >> 10} KiB long, and at most"
            f" {MAX_ENCODED >> 10} KiB are possible",
            hint="use a shorter user-data, one for all templates, or fewer VMs of templates with %{vm_rank}",
        )
    return text


def decode_cluster(text: str) -> Cluster:
    """Return the cluster that `encode` made `text` from; RequestError when it is not one."""
    try:
        cluster = parse_document(Cluster, CLUSTER_VERSION, _unpack(text))
    except (ValueError, zlib.error) as error:
        raise _damaged(str(error)) from error
    if not cluster.groups or any(group.count < 1 for group in cluster.groups):
        raise _damaged("the cluster, or a group of it, has no VMs")
    return cluster


def sets_text(cluster: Cluster) -> str:
    """Return the resource sets in rank order with their VM counts, such as `default:2,gpu:1`.

    The devices that a template adds follow, each as name, type and number: `default:2:gpu:a100:1:nic::2`.
    """
    runs: list[tuple[str, str, int]] = []
    for group in cluster.groups:
        devices = "".join(f":{name if ':' in name else f'{name}:'}:{count}" for name, count in group.devices)
        if runs and runs[-1][:2] == (group.resource_set, devices):
            runs[-1] = (group.resource_set, devices, runs[-1][2] + group.count)
        else:
            runs.append((group.resource_set, devices, group.count))
    return ",".join(f"{name}:{count}{devices}" for name, devices, count in runs)


def _unpack(text: str) -> bytes:
    if len(text) > MAX_ENCODED:
        raise ValueError(f"longer than {MAX_ENCODED} bytes")
    machine = zlib.decompressobj()
    data = machine.decompress(base64.b64decode(text, validate=True), MAX_JSON)
    if not machine.eof:
        raise ValueError("incomplete, or too large when unpacked")
    return data


def _damaged(reason: str) -> RequestError:
    return RequestError(
        f"the description of this job's virtual cluster is damaged: {reason}",
        hint="submit the job again, and leave the SLURM_SPANK_PCOCC_* variables alone",
    )

"""The frozen cluster document: what a job's virtual cluster is, fixed when the job is submitted.

It travels in the job's environment as base64 of zlib of JSON. The user can forge it: root trusts nothing of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from pcocc_runtime.errors import RequestError

CLUSTER_VERSION = 1
MAX_ENCODED = 120 * 1024  # Linux takes no environment string over 128 KiB (MAX_ARG_STRLEN, execve(2))
MAX_JSON = 8 * 1024 * 1024


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
    """VMs that are made alike, from one template; `memory` is the task's, in MiB, 0 for Slurm's default.

    What nodes read of a setting has a line here, which its row in templates/settings.py names.
    """

    template: str
    count: int
    image: str | None = None
    origin: str | None = None  # what names the image's revision, REPO:NAME@REV; None for a plain file
    resource_set: str = "default"
    cpus: int = 1
    memory: int = 0
    user_data: str | None = None
    instance_id: str | None = None
    mounts: tuple[Mount, ...] = ()
    persistent: tuple[Drive, ...] = ()
    nic_model: str = "virtio-net-pci"
    machine: str = "q35"
    cpu_model: str | None = None
    disk_model: str = "virtio"
    disk_cache: str = "unsafe"
    custom_args: tuple[str, ...] = ()
    qemu_bin: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    append: str | None = None
    firmware: str = "bios"
    display: str | None = None
    emulator_cores: int = 0
    bind_vcpus: bool = True
    full_node: bool = False
    command_user: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """The groups of a virtual cluster; VM ranks run through them in order."""

    groups: tuple[Group, ...]

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
    tree = {"version": CLUSTER_VERSION, "groups": [_pack(group) for group in cluster.groups]}
    data = json.dumps(tree, separators=(",", ":"), sort_keys=True).encode()
    text = base64.b64encode(zlib.compress(data, 9)).decode()
    if len(text) > MAX_ENCODED or len(data) > MAX_JSON:
        raise RequestError(
            f"the description of this virtual cluster has {len(text) >> 10} KiB, but can have {MAX_ENCODED >> 10} at most",
            hint="use a shorter user-data, one for all templates, or fewer VMs of templates with %{vm_rank}",
        )
    return text


def _pack(one: Group | Mount | Drive) -> dict[str, Any]:
    """Return what differs from the defaults."""
    found = {field.name: (getattr(one, field.name), field.default) for field in fields(one)}
    values = {name: value for name, (value, default) in found.items() if value != default}
    for name in {"mounts", "persistent"} & set(values):
        values[name] = [_pack(item) for item in values[name]]
    return values


def decode_cluster(text: str) -> Cluster:
    """Return the cluster that `encode` made `text` from; RequestError when it is not one."""
    try:
        tree = json.loads(_unpack(text))
    except (ValueError, binascii.Error, zlib.error, RecursionError) as error:
        raise _damaged(str(error)) from error
    if not isinstance(tree, dict) or tree.get("version") != CLUSTER_VERSION:
        raise _damaged(f"not a cluster of version {CLUSTER_VERSION}")
    groups = tuple(_build(Group, item) for item in _as_list(tree.get("groups")))
    if not groups:
        raise _damaged("it has no VM")
    return Cluster(groups)


def sets_text(cluster: Cluster) -> str:
    """Return the resource sets in rank order with their VM counts, such as `default:2,gpu:1`."""
    runs: list[tuple[str, int]] = []
    for group in cluster.groups:
        if runs and runs[-1][0] == group.resource_set:
            runs[-1] = (group.resource_set, runs[-1][1] + group.count)
        else:
            runs.append((group.resource_set, group.count))
    return ",".join(f"{name}:{count}" for name, count in runs)


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


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _damaged(f"expected a list, found {type(value).__name__}")
    return value


T = TypeVar("T", Group, Mount, Drive)
_SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "str | None": (str, type(None)),
}


def _build(kind: type[T], tree: Any) -> T:
    if not isinstance(tree, dict):
        raise _damaged(f"expected a mapping, found {type(tree).__name__}")
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in tree:
            values[field.name] = _value(field.name, str(field.type), tree[field.name])
        elif field.default is MISSING:
            raise _damaged(f"{field.name} is missing")
    unknown = sorted(set(tree) - set(values))
    if unknown:
        raise _damaged(f"unknown setting {unknown[0]!r}")
    if values.get("count", 1) < 1:
        raise _damaged("a group has less than one VM")
    return kind(**values)


def _value(name: str, annotation: str, value: Any) -> Any:
    if name == "mounts":
        return tuple(_build(Mount, item) for item in _as_list(value))
    if name == "persistent":
        return tuple(_build(Drive, item) for item in _as_list(value))
    if annotation == "tuple[str, ...]":
        return tuple(_value(name, "str", item) for item in _as_list(value))
    if type(value) not in _SCALARS[annotation]:
        raise _damaged(f"{name} is {type(value).__name__}, expected {annotation}")
    return value

"""What a site's hook gets on standard input: the virtual cluster as a JSON object in one line, see pcocc.yaml(5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pcocc_runtime import naming
from pcocc_runtime.documents.codec import parse_document

if TYPE_CHECKING:
    from pcocc_runtime.documents.cluster import Cluster

_VERSION = 1


@dataclass(frozen=True, slots=True)
class HookVm:
    """A VM: what its template and the user's options came to; `memory` is in MiB, 0 for Slurm's default.

    `mounts` has the host's directories by tag, `drives` the paths of the user's own disks.
    """

    name: str
    template: str
    image: str | None
    cpus: int
    memory: int
    resource_set: str
    mounts: Mapping[str, str]
    drives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HookCluster:
    """A user's VMs in the order of their ranks, at a `point` of their life; `job` is None at submission."""

    point: str
    job: int | None
    user: str
    vms: tuple[HookVm, ...]


def plan_hook_cluster(point: str, user: str, job: int | None, cluster: Cluster) -> HookCluster:
    """Return what the hooks of a point get."""
    groups = (group for group in cluster.groups for _one in range(group.count))
    return HookCluster(point, job, user, tuple(
        HookVm(
            naming.vm_name(rank), group.template, group.origin or group.image, group.cpus, group.memory,
            group.resource_set, {mount.tag: mount.path for mount in group.mounts},
            tuple(drive.path for drive in group.persistent),
        )
        for rank, group in enumerate(groups)
    ))  # fmt: skip


def encode_hook_cluster(found: HookCluster) -> str:
    """Return the line, in which nothing is left out: hooks are written in any language."""
    return json.dumps({"version": _VERSION, **asdict(found)}) + "\n"


def decode_hook_cluster(text: str) -> HookCluster:
    """Return what `encode_hook_cluster` has encoded; ValueError when it is not that."""
    return parse_document(HookCluster, _VERSION, text)

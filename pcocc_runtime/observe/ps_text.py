"""Virtual clusters as `pcocc ps` lists them: a line for each job, or for each VM."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pcocc_runtime import naming
from pcocc_runtime.documents.node_answer import NodeAnswer, Usage
from pcocc_runtime.documents.reach import address_of
from pcocc_runtime.tables import columns

UNKNOWN = "unknown"
_LAST_TIME = 1 << 36  # seconds of the epoch: later than any clock shows, and not too late for datetime


@dataclass(frozen=True, slots=True)
class VirtualCluster:
    """A job whose VMs run, as Slurm writes its parts; `time` is how long the job runs."""

    job: str
    name: str
    user: str
    partition: str
    vms: int
    time: str
    nodes: str


@dataclass(frozen=True, slots=True)
class ListedVm:
    """A VM of a job; `address` is where it is reached, `ports` lead to it: (node's port, VM's port).

    `since` is when its state began, in seconds of the epoch, 0 if not known.
    """

    job: str
    name: str
    node: str
    state: str
    address: str
    ports: tuple[tuple[int, int], ...]
    usage: Usage | None = None
    since: int = 0
    image: str = ""


def plan_vms(job: str, nodes: Sequence[NodeAnswer]) -> list[ListedVm]:
    """Return a job's VMs on all nodes; those of silent nodes are UNKNOWN, unless another knows their end."""
    by_name = {one.node.name: one for one in nodes}
    ends = [{rank: (one.states[rank], one.since.get(rank, 0)) for rank in one.states} for one in nodes]
    states = {rank: end for one in ends for rank, end in one.items()}
    return sorted(
        (
            _find_vm(job, rank, home.name, by_name.get(home.name), nodes[0], states)
            for home in nodes[0].node.nodes
            for rank in home.ranks
        ),
        key=lambda vm: int(vm.name[2:]),
    )


def _find_vm(
    job: str, rank: int, name: str, answer: NodeAnswer | None, other: NodeAnswer,
    states: Mapping[int, tuple[str, int]],
) -> ListedVm:
    vm, address = naming.vm_name(rank), address_of((answer or other).node.reach, rank) or ""
    if answer is None:
        state, since = states.get(rank, (UNKNOWN, 0))
        return ListedVm(job, vm, name, state, address, (), None, since)
    state = answer.states.get(rank, "not started")
    ports = tuple((one.host_port, one.vm_port) for one in answer.node.forwards if one.rank == rank)
    since, image = answer.since.get(rank, 0), answer.images.get(rank, "")
    return ListedVm(job, vm, name, state, address, ports, answer.usage.get(rank), since, image)


def render_clusters(every: Sequence[VirtualCluster]) -> str:
    """Return a line for each job."""
    rows = [("JOB", "NAME", "USER", "PARTITION", "VMS", "TIME", "NODES")]
    rows += [(one.job, one.name, one.user, one.partition, str(one.vms), one.time, one.nodes) for one in every]
    return columns(rows)


def render_vms(every: Sequence[ListedVm]) -> str:
    """Return a line for each VM."""
    rows = [("JOB", "VM", "NODE", "ADDRESS", "REACHED BY", "CPU%", "MEMORY", "IMAGE", "SINCE", "STATE")]
    for one in every:
        reached = " ".join(f"{one.node}:{host}>{port}" for host, port in one.ports)
        used = _render_usage(one.usage)
        rows.append((
            one.job, one.name, one.node, one.address or "-", reached or "-", *used, one.image or "-",
            _render_time(one.since), one.state,
        ))  # fmt: skip
    return columns(rows)


def _render_usage(used: Usage | None) -> tuple[str, str]:
    """Return a VM's use of its CPUs since it started, 100 for a whole CPU, and its present use of its memory."""
    if used is None:
        return "-", "-"
    share = f"{100 * used.cpu / max(used.since, 1):.0f}"
    limits = (f"/{100 * used.cpus}" if used.cpus else "", f"/{used.limit >> 20}M" if used.limit else "")
    return share + limits[0], f"{used.memory >> 20}M{limits[1]}"


def _render_time(seconds: int) -> str:
    """Return a time as Slurm writes it, in this host's zone."""
    return datetime.fromtimestamp(seconds).isoformat() if 0 < seconds < _LAST_TIME else "-"


def render_json(clusters: Sequence[VirtualCluster], vms: Sequence[ListedVm] | None) -> str:
    """Return jobs as JSON, each with its VMs when they are known."""
    trees: list[dict[str, Any]] = [asdict(one) for one in clusters]
    for tree in trees if vms is not None else ():
        tree["vm_list"] = [_as_tree(vm) for vm in vms or () if vm.job == tree["job"]]
    return json.dumps(trees, indent=2) + "\n"


def _as_tree(vm: ListedVm) -> dict[str, Any]:
    forwards = [{"vm_port": port, "host_port": host} for host, port in vm.ports]
    tree: dict[str, Any] = {
        "name": vm.name,
        "node": vm.node,
        "state": vm.state,
        "address": vm.address or None,
        "forwards": forwards,
        "image": vm.image or None,
        "since": vm.since or None,
    }
    if vm.usage:
        used = vm.usage
        tree |= {
            "cpu_seconds": used.cpu / 1000,
            "seconds": used.since / 1000,
            "memory_bytes": used.memory,
            "guest_memory_bytes": used.limit,
            "cpus": used.cpus,
        }
    return tree


def render_top(every: Sequence[ListedVm], before: Mapping[tuple[str, str], Usage]) -> str:
    """Return a line for each VM with what it uses; of CPU, since `before` (by job and name) or since it started."""
    rows = [("JOB", "VM", "NODE", "UP", "CPU%", "MEMORY", "GUEST", "STATE")]
    for vm in every:
        used = vm.usage
        if used is None:
            rows.append((vm.job, vm.name, vm.node, "-", "-", "-", "-", vm.state))
            continue
        last = before.get((vm.job, vm.name))
        last = last if last and last.since < used.since else Usage(0, 0, 0)
        share = 100 * (used.cpu - last.cpu) / max(used.since - last.since, 1)
        sizes = (f"{used.memory >> 20}M", f"{used.limit >> 20}M" if used.limit else "-")
        rows.append((vm.job, vm.name, vm.node, _duration(used.since // 1000), f"{share:.0f}", *sizes, vm.state))
    return columns(rows)


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

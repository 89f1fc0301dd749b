"""What `pcocc topology --json` shows of a VM: JSON in a line, from the operation's task to the user's program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pcocc_runtime.documents.hardware import Flattened, HostCpu, Shape


class Lying(NamedTuple):
    """MiB of QEMU's memory by the host node they lie on, under a policy such as `bind:0`, in pages of so many KiB."""

    policy: str
    page: int
    nodes: Mapping[int, int]


class OtherThread(NamedTuple):
    """A thread of QEMU's that is no vCPU's, by the name it has, such as `IO disk0-0`, and the CPUs it may run on."""

    name: str
    allowed: tuple[int, ...]


class ShownVcpu(NamedTuple):
    """A vCPU: its place by QEMU's names of the levels, the host's CPU planned for it, and those it may run on."""

    guest: Mapping[str, int]
    host: HostCpu | None
    allowed: tuple[int, ...]


class ShownNode(NamedTuple):
    """A NUMA node of the guest: its host node, its vCPUs, its MiB."""

    host: int
    cpus: tuple[int, ...]
    memory: int


class TopologyAnswer(NamedTuple):
    """A VM on a node as planned and as found, and a sentence for each difference between the two."""

    vm: str
    node: str
    accel: str
    cpu: str
    shape: Shape
    vcpus: tuple[ShownVcpu, ...]
    nodes: tuple[ShownNode, ...]
    distances: tuple[tuple[int, ...], ...]
    memory: tuple[Lying, ...]
    emulator: tuple[int, ...]
    devices: tuple[str, ...]
    threads: tuple[OtherThread, ...]
    flattened: tuple[Flattened, ...]
    differences: tuple[str, ...]


def encode_topology_answer(answer: TopologyAnswer) -> str:
    """Return the line; each record is a mapping of its fields."""
    return json.dumps(_plan_tree(answer)) + "\n"


def _plan_tree(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plan_tree(one) for key, one in value.items()}
    return [_plan_tree(one) for one in value] if isinstance(value, tuple) else value

"""What a task holds of its node's hardware, and the piece of it that its VM is: topology.json in the VM's directory.

The launcher writes it before it becomes QEMU; the operation @topology compares it with what runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pcocc_runtime.documents.codec import parse_document, render_document

TOPOLOGY_FILE = "topology.json"
MAX_TOPOLOGY = 4 * 1024 * 1024  # bytes; 4,096 CPUs take 0.3 MiB
_VERSION = 1


class HostCpu(NamedTuple):
    """A CPU of the host, and the groups it is in, each named by the lowest CPU of it that the host has.

    `node` is the number of its NUMA node, None where /sys has it in none. `l2` and `l3` are those that share
    the cache, `l3` None where there is none; `l3_cpus` is how many CPUs of the host share it.
    """

    number: int
    package: int
    die: int
    cluster: int
    core: int
    node: int | None
    l2: int
    l3: int | None
    l3_cpus: int


class HostNode(NamedTuple):
    """A NUMA node: its CPUs and MiB on the host, whether the task may use its memory, distances to all nodes.

    `memory` is None where /sys does not tell it.
    """

    number: int
    cpus: int
    memory: int | None
    usable: bool
    distances: tuple[int, ...]


class Allocation(NamedTuple):
    """What a task holds: its CPUs and all NUMA nodes of the host by number, CPUs online, and one CPU flag."""

    cpus: tuple[HostCpu, ...]
    nodes: tuple[HostNode, ...]
    online: int
    topoext: bool = False


class Shape(NamedTuple):
    """The levels of a guest's CPUs as QEMU counts them; `cpus` of the product are there, the first ones."""

    cpus: int
    sockets: int = 1
    dies: int = 1
    clusters: int = 1
    cores: int = 1
    threads: int = 1

    @property
    def most(self) -> int:
        """Return the product of all levels."""
        return self.sockets * self.dies * self.clusters * self.cores * self.threads


class GuestNode(NamedTuple):
    """A NUMA node of the guest: its host node, its vCPUs, its MiB; `strict`: all of them there, or what fits."""

    host: int
    cpus: tuple[int, ...]
    memory: int = 0
    strict: bool = True

    @property
    def policy(self) -> str:
        """Return the policy of its memory as QEMU's backends have it."""
        return f",host-nodes={self.host},policy={'bind' if self.strict else 'preferred'}"


class Flattened(NamedTuple):
    """A level that the guest does not show as the host has it, and why in a clause."""

    level: str
    why: str


@dataclass(frozen=True, slots=True)
class Topology:
    """A guest's CPUs and NUMA nodes.

    `cpus` has the host's CPU of each vCPU, in order, and nothing where no CPU is the task's own; `emulator`
    has those of QEMU's other threads, nothing for all of the task's. `nodes` is empty where memory is not
    bound; `distances` has a row for each of them. `l3`: what QEMU shows as a die shares an L3 cache; `l2`:
    what it shows as a cluster shares an L2. `whole_l3`: the task has all CPUs of each L3 that it has one of.
    `levels`: those of the shape are shown, which they always are where a CPU is the task's own.
    """

    shape: Shape
    cpus: tuple[int, ...] = ()
    emulator: tuple[int, ...] = ()
    nodes: tuple[GuestNode, ...] = ()
    distances: tuple[tuple[int, ...], ...] = ()
    l3: bool = True
    l2: bool = False
    whole_l3: bool = False
    levels: bool = False
    flattened: tuple[Flattened, ...] = ()


@dataclass(frozen=True, slots=True)
class VmTopology:
    """What `@topology` compares: the task's part of the host, the guest's part, QEMU's pid, the launcher's choices.

    `page` is the size of the guest's pages in KiB on the host, 0 for ordinary ones; `cpu` is QEMU's -cpu.
    `binds`: this QEMU can bind memory to nodes. `devices` has a line for each disk and interface.
    """

    pid: int
    accel: str
    cpu: str
    page: int
    part: Allocation
    guest: Topology
    binds: bool = True
    devices: tuple[str, ...] = ()


def encode_topology(found: VmTopology) -> bytes:
    """Return the file's content."""
    return render_document(found, _VERSION).encode()


def decode_topology(data: bytes) -> VmTopology:
    """Return what `encode_topology` has encoded; ValueError when it is not that."""
    return parse_document(VmTopology, _VERSION, data)

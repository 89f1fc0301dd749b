"""node.json: what root's helper writes on a node for its VMs' launchers, `pcocc network` and `pcocc ps`.

It lies in the job's directory, which belongs to the job's user: whoever reads it has that user's rights and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any, ClassVar, NamedTuple

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.codec import parse_document, render_document
from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.errors import NodeError, one_line

NODE_VERSION = 1
MAX_NODE = 64 * 1024 * 1024  # bytes; 262,144 VMs take 2 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class _NetworkFacts:
    """What every network has: its place among the job's, the MTU in VMs, and the (first, last) ranks of its VMs."""

    index: int
    name: str
    mtu: int
    members: tuple[tuple[int, int], ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the ranks of all VMs of the job that are on the network."""
        return tuple(rank for first, last in self.members for rank in range(first, last + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedFacts(_NetworkFacts):
    """An L3 network, whose addresses are ours; `addresses6` is None where the node has no IPv6.

    `outbound` is True for everywhere, False for nowhere, or the networks outside that VMs may reach.
    """

    kind: ClassVar[str] = "L3"
    addresses: IPv4Network
    addresses6: IPv6Network | None
    domain: str
    search: tuple[str, ...]
    outbound: bool | tuple[IPv4Network, ...]

    @property
    def gateway(self) -> str:
        """Return the address of gateway, DHCP and DNS."""
        return str(addressing.gateway_address(self.addresses))

    def address_of(self, rank: int) -> str:
        """Return the address of a VM."""
        return str(addressing.vm_address(self.addresses, rank))


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFacts(_NetworkFacts):
    """An L2 network: pcocc gives no addresses on it, its users configure it as they like."""

    kind: ClassVar[str] = "L2"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgedFacts(_NetworkFacts):
    """A network on a bridge of the site, where the site gives addresses."""

    kind: ClassVar[str] = "bridged"


NetworkFacts = RoutedFacts | SegmentFacts | BridgedFacts


class InterfaceFacts(NamedTuple):
    """A VM's interface: the index of its network, and its MAC address."""

    network: int
    mac: str


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """A PCI function of the node that a VM has: of which network or device of the site, its address and NUMA node.

    In a partition of InfiniBand it has a key, and on a fabric a GUID; on an Ethernet network a MAC address and an MTU.
    """

    source: str
    address: str
    numa: int | None = None
    key: int | None = None
    guid: str | None = None
    mac: str | None = None
    mtu: int | None = None

    @staticmethod
    def of_former(tree: Any) -> Any:
        """Return as a mapping what former versions wrote as a list; jobs, and so their files, live over an upgrade."""
        for names in (("source", "key", "address", "guid"), ("source", "address", "numa", "key", "guid")):
            if isinstance(tree, list) and len(tree) == len(names):
                return dict(zip(names, tree, strict=True))
        return tree


class Reach(NamedTuple):
    """A network by which VMs are reached, as `reach.address_of` reads it: its IPv4 prefix, and (first, last) ranks."""

    prefix: str
    members: tuple[tuple[int, int], ...]


class PortForward(NamedTuple):
    """A TCP port of the node that leads to one of a VM, as `reach.render_ports` reads it."""

    rank: int
    vm_port: int
    host_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node and the job's part on it; ValueError when one field contradicts another.

    `name` is one of `nodes`, which are all nodes of the job with their VMs. `interfaces` are those of this
    node's VMs by rank, eth0 first; `forwards` lead to them. `scratch` is the job's own directory. Times are
    in seconds. `kvm_expected`: where guests are emulated all the same, somebody should know. `console_log` is
    how many bytes are kept of what a VM says on its console. `hugepages` and `cpu_model` are for templates
    that say nothing of them; `functions` are those of VMs, by rank. `has` is what the node's QEMU can do
    (qemu/asking.py), None where it has not said.
    """

    job: int
    name: str
    nodes: tuple[NodeLayout, ...]
    accel: str
    accel_why: str
    qemu: str
    scratch: str
    cache: ImageCache | None
    boot_timeout: int
    shutdown_grace: int
    networks: tuple[NetworkFacts, ...]
    interfaces: Mapping[int, tuple[InterfaceFacts, ...]]
    reach: tuple[Reach, ...]
    forwards: tuple[PortForward, ...]
    console_log: int = 1 << 20
    kvm_expected: bool = False
    hugepages: str = "off"
    cpu_model: str | None = None
    functions: Mapping[int, tuple[FunctionFacts, ...]] = field(default_factory=dict)
    has: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _ensure_layout(self)
        _ensure_networks(self)
        _ensure_vms(self)
        if self.accel not in ("kvm", "tcg"):
            raise ValueError(f"{self.accel} is not an accelerator")

    @property
    def index(self) -> int:
        """Return the node's place among the job's."""
        return [one.name for one in self.nodes].index(self.name)

    @property
    def here(self) -> NodeLayout:
        """Return this node with its VMs."""
        return self.nodes[self.index]

    @property
    def vm_count(self) -> int:
        """Return the number of VMs of the whole cluster."""
        return sum(len(node.ranks) for node in self.nodes)

    def ranks_on(self, network: NetworkFacts) -> tuple[int, ...]:
        """Return the ranks of this node's VMs that are on a network."""
        return tuple(
            rank
            for rank in self.here.ranks
            if any(one.network == network.index for one in self.interfaces[rank])
        )


def _ensure_layout(node: NodeFacts) -> None:
    ranks = [rank for one in node.nodes for rank in one.ranks]
    if (
        node.job > naming.MAX_JOB_ID
        or len(ranks) > naming.MAX_RANK + 1
        or sorted(ranks) != [*range(len(ranks))]
    ):
        raise ValueError("its nodes' VMs are not numbered as those of a job")
    if [one.name for one in node.nodes].count(node.name) != 1:
        raise ValueError("it is not one of the job's nodes")


def _ensure_networks(node: NodeFacts) -> None:
    indexes = [one.index for one in node.networks]
    if len({*indexes}) < len(indexes) or not {*indexes} <= {*range(naming.MAX_NETWORKS)}:
        raise ValueError("its networks are not numbered as those of a job")
    for one in node.networks:
        if not _are_runs(one.members, node.vm_count):
            raise ValueError(f"it is not clear which VMs are on network {one.name}")
        if isinstance(one, RoutedFacts) and not addressing.room_for(
            one.addresses, node.vm_count, len(node.nodes)
        ):
            raise ValueError(f"{one.addresses} is too small for the job")


def _ensure_vms(node: NodeFacts) -> None:
    own, known = {*node.here.ranks}, {one.index for one in node.networks}
    if {*node.interfaces} != own or not {
        one.network for every in node.interfaces.values() for one in every
    } <= known:
        raise ValueError("its interfaces do not match its VMs and networks")
    prefixes = {str(one.addresses) for one in node.networks if isinstance(one, RoutedFacts)}
    if not all(one.prefix in prefixes and _are_runs(one.members, node.vm_count) for one in node.reach):
        raise ValueError("it is not clear by which network a VM is reached")
    if not {*node.functions} <= own:
        raise ValueError("a virtual function is of none of its VMs")
    if not all(
        one.rank in own and 0 < one.vm_port < 65536 and 0 < one.host_port < 65536 for one in node.forwards
    ):
        raise ValueError("a forwarded port leads to none of its VMs")


def _are_runs(members: tuple[tuple[int, int], ...], vms: int) -> bool:
    """Tell whether these are (first, last) ranks in order, none twice."""
    flat = [rank for first, last in members for rank in (first, last + 1)]
    return flat == sorted(flat) and all(first <= last < vms for first, last in members)


def encode_node(node: NodeFacts) -> bytes:
    """Return the content of node.json."""
    return render_document(node, NODE_VERSION).encode()


def decode_node(data: bytes | None, job: int) -> NodeFacts:
    """Return what is in a job's node.json, of which `data` is the start (MAX_NODE and more), None when there is none.

    NodeError when it is missing, too long, damaged, of another version or another job's.
    """
    path = naming.job_dir(job) / naming.NODE_FILE
    if data is None:
        raise NodeError(
            f"the VMs of job {job} are not running on this node: there is no {path}",
            "look into slurmd's log here",
        )
    try:
        if len(data) > MAX_NODE:
            raise ValueError(f"it is longer than {MAX_NODE >> 20} MiB")
        node = parse_document(NodeFacts, NODE_VERSION, data)
        if node.job != job:
            raise ValueError(f"it belongs to job {node.job}")
    except ValueError as error:
        why = one_line(str(error))[:200]
        raise NodeError(
            f"{path} cannot be read: {why}",
            "was pcocc changed since the job's VMs were booted? start a new job",
        ) from None
    return node

"""What root's helper and its planner, which has no rights, tell each other in lines of JSON over two pipes.

The planner says what the job needs, hears what root holds for it, and leaves a list of acts for node/apply.py.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from pcocc_runtime.errors import NodeError

MAX_LINE = 64 * 1024 * 1024  # bytes; 64 VMs on a network of 1,023 peers take 0.3 MB


class PortWish(NamedTuple):
    """A VM's port in the `network`-th network, to which a TCP port of this node from `low` to `high` shall lead."""

    network: int
    name: str
    rank: int
    vm_port: int
    low: int
    high: int


class Offer(NamedTuple):
    """What the site has set for this node, and what the job needs there: a way out, and ports that are not `busy`."""

    scratch: str
    accel: str
    qemu: str
    way_out: bool
    ports: tuple[PortWish, ...]
    busy: tuple[int, ...] = ()


class Forward(NamedTuple):
    """A TCP port of the node that leads to a port of a VM, in the job's `network`-th network."""

    network: int
    rank: int
    vm_port: int
    host_port: int


class Nat(NamedTuple):
    """What a job holds of a node: a pair of link-local addresses, and TCP ports."""

    slot: int
    forwards: tuple[Forward, ...] = ()


class Held(NamedTuple):
    """What root holds on this node: the job's way out, its VMs' accelerator and why, what QEMU has said it can do."""

    nat: Nat | None
    accel: str
    accel_why: str
    abilities: str = ""


class Act(NamedTuple):
    """One thing that root does for a job, `inside` its network namespace or in the host's.

    `kind`: nft, ip or bridge, with its batch in `text`, and in `name` the answer where another job was faster;
    sysctl: `name` gets the value `text`; devices, with a document of documents/devices.py; keep: what the next
    Held says; dnsmasq: the `name`-th server, with the configuration `text` and a filter `code` in hex.
    """

    kind: str
    inside: bool
    text: str
    name: str = ""
    code: str = ""


class Work(NamedTuple):
    """The work left for root: `acts` in their order, the content of node.json, and the answer to the plugin."""

    acts: tuple[Act, ...]
    node: str
    answer: str


def encode_line(value: Offer | Held | Work) -> bytes:
    """Return a document as one line; tuples of any depth are JSON's lists."""
    return json.dumps(value).encode() + b"\n"


def decode_offer(line: bytes) -> Offer:
    """Return the planner's offer; NodeError when the line is none."""
    scratch, accel, qemu, way_out, ports, busy = _load_line(line, 6)
    wishes = tuple(PortWish(*one) for one in ports)
    return Offer(str(scratch), str(accel), str(qemu), way_out is True, wishes, tuple(busy))


def decode_nat(tree: Any) -> Nat | None:
    """Return a way out as JSON has it, a list of slot and forwards; None for anything else."""
    try:
        return Nat(tree[0], tuple(Forward(*one) for one in tree[1]))
    except (LookupError, TypeError, AttributeError):
        return None


def decode_held(line: bytes) -> Held:
    """Return what root holds; NodeError when the line does not say it."""
    nat, *words = _load_line(line, len(Held._fields))
    return Held(decode_nat(nat), *map(str, words))


def decode_work(line: bytes) -> Work:
    """Return the planner's work; NodeError when the line is none."""
    acts, node, answer = _load_line(line, 3)
    return Work(tuple(Act(*one) for one in acts), str(node), str(answer))


def _load_line(line: bytes, count: int) -> list[Any]:
    """Return a line's list of so many items; NodeError when it is none."""
    try:
        tree = json.loads(line) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, list) or len(tree) != count:
        raise NodeError("the process that plans this node's networks ended without a message", "look into slurmd's log")
    return tree

"""What root's helper and its planner, which has no rights, tell each other in lines of JSON over two pipes.

The planner says what the job needs, hears what root holds for it, and leaves a list of acts for node/apply.py. Where
it cannot, its last line says why.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from pcocc_runtime.errors import NodeError, PcoccError

_CHARGE, _ERROR = "charge", "error"
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

    `kind`: nft, ip, bridge or tc, with its batch in `text`, and in `name` the answer where another job was faster;
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


class ChargeWanted(Exception):
    """A resource set is for certain accounts, partitions or QOS, and the plugin has not told the job's yet."""


def encode_line(value: Offer | Held | Work) -> bytes:
    """Return a document as one line: JSON's list of its name and its fields, where tuples of any depth are lists."""
    return json.dumps([type(value).__name__, *value]).encode() + b"\n"


def encode_end(error: PcoccError | ChargeWanted) -> bytes:
    """Return the last line of a planner that an error ends, which who decodes an offer or work there will raise."""
    words = [_CHARGE] if isinstance(error, ChargeWanted) else [_ERROR, error.message, error.hint, error.where]
    return json.dumps(words).encode() + b"\n"


def decode_offer(line: bytes) -> Offer:
    """Return the planner's offer; raises what it ended with instead."""
    scratch, accel, qemu, way_out, ports, busy = _load_line(line, Offer)
    wishes = tuple(PortWish(*one) for one in ports)
    return Offer(str(scratch), str(accel), str(qemu), way_out is True, wishes, tuple(busy))


def encode_nat(nat: Nat) -> str:
    """Return what a job holds as a text for its record."""
    return json.dumps(nat)


def decode_nat(text: str) -> Nat | None:
    """Return what a job's record says that it holds, None when it holds nothing or the record is damaged."""
    return _build_nat(json.loads(text))


def _build_nat(tree: Any) -> Nat | None:
    try:
        return Nat(tree[0], tuple(Forward(*one) for one in tree[1]))
    except (LookupError, TypeError, AttributeError):
        return None


def decode_held(line: bytes) -> Held:
    """Return what root holds; NodeError when the line does not say it."""
    nat, *words = _load_line(line, Held)
    return Held(_build_nat(nat), *map(str, words))


def decode_work(line: bytes) -> Work:
    """Return the planner's work; raises what it ended with instead."""
    acts, node, answer = _load_line(line, Work)
    return Work(tuple(Act(*one) for one in acts), str(node), str(answer))


def _load_line(line: bytes, kind: type[NamedTuple]) -> list[Any]:
    """Return the fields of such a document; raises the error that ended the planner, NodeError for any other line."""
    try:
        tree = json.loads(line) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        tree = None
    name, *fields = tree if isinstance(tree, list) and tree else [None]
    if name == _CHARGE:
        raise ChargeWanted
    if name == _ERROR and len(fields) == 3:
        raise NodeError(str(fields[0]), *(None if text is None else str(text) for text in fields[1:]))
    if name != kind.__name__ or len(fields) != len(kind._fields):
        raise NodeError("the process that plans this node's networks ended without a message", "look into slurmd's log")
    return fields

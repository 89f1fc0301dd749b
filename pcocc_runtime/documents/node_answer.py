"""What the nodes of a job know about its networks, and the lines of a step's output that carry it.

The job's user could have forged any of it: its form is checked, and it is made printable, before it is shown.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pcocc_runtime.documents.codec import parse_document, render_document
from pcocc_runtime.documents.node import NodeFacts, RoutedFacts
from pcocc_runtime.errors import one_line

SHOW, CHECK = "show", "check"  # what a node is asked for
PORTS = "ports"  # with SHOW: guests are to be asked about their ports, which takes longer
ENDED_STATE = "ended: "  # begins the state of a VM that has ended
ANSWER_VERSION = 1
_MARK = "pcocc-network"
_WIDTH = 800  # characters: srun mixes lines of several tasks that are longer than its buffer of 1 KiB
_MAX_JSON = 64 * 1024 * 1024
_MAX_TEXT = 500  # characters of one text


@dataclass(frozen=True, slots=True)
class NetDevice:
    """A network device as its namespace counts it; bytes and packets are since it was made."""

    mtu: int
    up: bool
    received: int
    sent: int
    dropped: int


@dataclass(frozen=True, slots=True)
class ReachReport:
    """What a node found when it tried to reach the VMs in `tried`, in the network with that index.

    Of those that do not answer packets of the network's size, `narrow` answer small ones, `silent` answer ssh
    only, and `lost` answer nothing. `deaf`: the DNS server does not answer. `outbound` says why a target outside
    was not reached; it is None when that was not tried, empty when it was reached.
    """

    network: int
    tried: tuple[int, ...]
    lost: frozenset[int]
    narrow: frozenset[int]
    silent: frozenset[int]
    wrong_names: tuple[str, ...]
    deaf: bool
    outbound: str | None


@dataclass(frozen=True, slots=True)
class PortReport:
    """What a guest says of its port on an InfiniBand network: its state, None where it has none, and its keys.

    `guid` and `key` are those it should have, `uplink` is the state of the node's own port, None where that is not
    known. `trouble` says why the guest was not asked.
    """

    rank: int
    source: str
    guid: str
    key: int | None = None
    state: str | None = None
    keys: tuple[int, ...] = ()
    uplink: str | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a VM's QEMU has used: milliseconds of CPU and of time since it began, and its memory now in bytes.

    `limit` is the guest's memory, `cpus` the number of its CPUs, each 0 if not known.
    """

    cpu: int
    since: int
    memory: int
    limit: int = 0
    cpus: int = 0


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """The whole answer of one node: its node.json, and the devices of the job's namespace by name.

    By rank, `states` has the state of each VM of the node in words, and of VMs of other nodes that have ended;
    `since` says since when, in seconds of the epoch; `usage` is of VMs that run; `images` is what the node's VMs
    have booted from; `ports` are those of InfiniBand. `trouble` says why nothing could be asked, `dhcp` whether a
    DHCP server listens. ValueError
    when it names VMs or networks that do not exist.
    """

    kind: ClassVar[str] = "answer"
    node: NodeFacts
    links: Mapping[str, NetDevice]
    states: Mapping[int, str]
    reports: tuple[ReachReport, ...] = ()
    dhcp: bool | None = None
    trouble: str | None = None
    usage: Mapping[int, Usage] = field(default_factory=dict)
    since: Mapping[int, int] = field(default_factory=dict)
    images: Mapping[int, str] = field(default_factory=dict)
    ports: tuple[PortReport, ...] = ()

    def __post_init__(self) -> None:
        vms, routed = self.node.vm_count, {
            one.index for one in self.node.networks if isinstance(one, RoutedFacts)
        }
        asked = {rank for one in self.reports for rank in (*one.tried, *one.lost, *one.narrow, *one.silent)}
        named = asked | {*self.states, *self.usage, *self.since, *self.images}
        named |= {one.rank for one in self.ports}
        if not named <= {*range(vms)} or not {one.network for one in self.reports} <= routed:
            raise ValueError("it names VMs or networks that the job does not have")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a node says nothing, in a sentence that names it."""

    kind: ClassVar[str] = "failure"
    sentence: str


@dataclass(frozen=True, slots=True)
class _Sent:
    content: NodeAnswer | Failure


def encode_node_answer(task: int, content: NodeAnswer | Failure) -> Iterator[str]:
    """Yield the lines that carry a task's answer, each short enough that srun does not break it."""
    text = base64.b64encode(zlib.compress(render_document(_Sent(content), ANSWER_VERSION).encode())).decode()
    for start in range(0, len(text), _WIDTH):
        yield f"{_MARK} {task} {text[start : start + _WIDTH]}"
    yield f"{_MARK} {task} ."


def decode_node_answers(lines: Iterable[str]) -> list[NodeAnswer | Failure]:
    """Return the whole answer of each task, in the order of the tasks; lines of other programs are ignored."""
    parts: dict[int, list[str]] = {}
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[0] == _MARK and words[1].isascii() and words[1].isdigit() and len(words[1]) < 10:
            parts.setdefault(int(words[1]), []).append(words[2])
    return [_decode("".join(part[:-1])) for _task, part in sorted(parts.items()) if part[-1] == "."]


def _decode(text: str) -> NodeAnswer | Failure:
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _MAX_JSON)
        return parse_document(_Sent, ANSWER_VERSION, data, clean=_clean).content
    except (ValueError, zlib.error) as error:
        why = f"{_clean(str(error))[:200]}; check that all nodes have the same version of pcocc"
        return Failure(f"a node's answer about the networks cannot be read: {why}")


def _clean(text: str) -> str:
    return one_line(text)[:_MAX_TEXT]

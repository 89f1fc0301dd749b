"""What the nodes of a job say about its networks: the lines a step carries it in, and what they mean.

The job's user could have made any of it: it is checked for its form, and made printable, before anybody is shown it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError, one_line

ENDED_STATE = "ended: "  # begins the state of such a VM
_MARK = "pcocc-network"
_WIDTH = 800  # characters: srun mixes lines of several tasks that are longer than its buffer of 1 KiB
_MAX_JSON = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Device:
    """A network device as its namespace counts it; bytes and packets are since it was made."""

    mtu: int
    up: bool
    received: int
    sent: int
    dropped: int


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """One network as one node has it; `ranks` are its VMs here, `members` all of the cluster's."""

    index: int
    name: str
    kind: str
    mtu: int
    ranks: tuple[int, ...]
    members: tuple[int, ...]
    addresses: IPv4Network | None = None
    gateway: str = ""
    domain: str = ""
    mac_prefix: str = ""
    outbound: bool | tuple[IPv4Network, ...] = False

    def address_of(self, rank: int) -> str:
        """Return a VM's address, an empty text where the network gives none."""
        return str(naming.vm_address(self.addresses, rank)) if self.addresses else ""


@dataclass(frozen=True, slots=True)
class ReachReport:
    """What a node found by asking the VMs in `tried`.

    Of those that do not answer packets of the network's size, `narrow` answer small ones, `silent` answer ssh only, `lost`
    nothing. `deaf`: the DNS server answers nothing. `outbound` is None when it was not tried, empty when it went well.
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
class NodeFacts:
    """All that one node says; `index` is its place in `nodes`, which are all nodes of the job with their VMs.

    `reach` is by which addresses all VMs of the job are reached, see `addressing.address_of`. `states` says of each VM on this
    node, by rank, in words how far it is, and of VMs of other nodes which have ended.
    """

    job: int
    name: str
    index: int
    nodes: tuple[tuple[str, tuple[int, ...]], ...]
    networks: tuple[NetworkFacts, ...]
    links: Mapping[str, Device]
    forwards: tuple[tuple[int, int, int], ...] = ()
    probes: tuple[ReachReport, ...] = ()
    dhcp: bool | None = None
    trouble: str | None = None
    orders: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    states: Mapping[int, str] = field(default_factory=dict)
    reach: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = ()

    def interface_of(self, rank: int, network: int) -> str:
        """Return the name that a guest gives its interface in a network, as `netplan.interfaces_of` orders them: the first is eth0."""
        if network in self.orders.get(rank, ()):
            return f"eth{self.orders[rank].index(network)}"
        return f"eth{sum(rank in one.members for one in self.networks if one.index < network)}"


def encode_answer(task: int, tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines by which a task sends `tree`, none so long that srun would break it."""
    text = base64.b64encode(zlib.compress(json.dumps(tree).encode())).decode()
    for start in range(0, len(text), _WIDTH):
        yield f"{_MARK} {task} {text[start : start + _WIDTH]}"
    yield f"{_MARK} {task} ."


def decode_answers(lines: Iterable[str]) -> list[Any]:
    """Return what each task has sent as a whole, in the order of the tasks; other lines are not ours."""
    parts: dict[int, list[str]] = {}
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[0] == _MARK and words[1].isascii() and words[1].isdigit():
            parts.setdefault(int(words[1]), []).append(words[2])
    return [_unpack("".join(part[:-1])) for _task, part in sorted(parts.items()) if part[-1] == "."]


def _unpack(text: str) -> Any:
    try:
        machine = zlib.decompressobj()
        data = machine.decompress(base64.b64decode(text, validate=True), _MAX_JSON)
        return json.loads(data)
    except (ValueError, binascii.Error, zlib.error, RecursionError) as error:
        raise _damaged(str(error)) from None


def parse_node(tree: Any) -> NodeFacts:
    """Return what one task has sent; NodeError when it is not of the form that `netinfo` sends, or says what failed there."""
    try:
        if "error" in tree:
            raise NodeError(one_line(str(tree["error"]))[:500])
        return _parse_node(tree)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from None


def _damaged(why: str) -> NodeError:
    return NodeError(f"what a node sent about the networks cannot be read: {one_line(why)[:200]}",
                     "are all nodes of one version of pcocc?")  # fmt: skip


def _parse_node(tree: Mapping[str, Any]) -> NodeFacts:
    facts = tree["node"]
    nodes = tuple((_word(name), tuple(map(_number, ranks))) for name, ranks in facts["nodes"])
    name = _word(facts["node"])
    vms = sum(len(ranks) for _name, ranks in nodes)
    if vms > naming.MAX_RANK or sorted(rank for _name, ranks in nodes for rank in ranks) != list(range(vms)):
        raise ValueError("the VMs of its nodes are not those of a job")
    return NodeFacts(
        job=_number(facts["job"], naming.MAX_JOB_ID),
        name=name,
        index=[one for one, _ranks in nodes].index(name),
        nodes=nodes,
        networks=tuple(_parse_network(one, vms, len(nodes)) for one in facts["networks"]),
        links={_word(device): _parse_link(one) for device, one in tree["links"].items()},
        forwards=tuple((_number(rank), _number(port), _number(host)) for rank, port, host in facts.get("reverse_nat", ())),
        probes=tuple(_parse_probe(one) for one in tree.get("probes", ())),
        dhcp=tree.get("dhcp"),
        trouble=_word(tree["trouble"]) if tree.get("trouble") else None,
        orders={int(rank): tuple(_number(one["network"]) for one in every) for rank, every in facts.get("interfaces", {}).items()},
        states={int(rank): _word(state) for rank, state in tree.get("vms", {}).items()},
        reach=tuple(
            (str(_parse_prefix(prefix, vms, len(nodes))), tuple((_number(first), _number(last)) for first, last in members))
            for prefix, members in facts.get("reach", ())
        ),
    )


def _parse_link(tree: Mapping[str, Any]) -> Device:
    return Device(_number(tree["mtu"]), bool(tree["up"]), *(_number(tree[key]) for key in ("received", "sent", "dropped")))


def _parse_network(tree: Mapping[str, Any], vms: int, nodes: int) -> NetworkFacts:
    kind, outbound = _word(tree["layer"]), tree.get("outbound", False)
    routed = kind == "L3"
    return NetworkFacts(
        index=_number(tree["index"], naming.MAX_NETWORKS - 1),
        name=_word(tree["name"]),
        kind=kind,
        mtu=_number(tree["mtu"]),
        ranks=tuple(_number(rank, vms - 1) for rank in tree["ranks"]),
        members=tuple(rank for first, last in tree["members"] for rank in range(_number(first), min(_number(last) + 1, vms))),
        addresses=_parse_prefix(tree["network"], vms, nodes) if routed else None,
        gateway=_word(tree["gateway"]) if routed else "",
        domain=_word(tree["domain"]) if routed else "",
        mac_prefix=_word(tree.get("mac_prefix") or ""),
        outbound=outbound if isinstance(outbound, bool) else tuple(IPv4Network(_word(one)) for one in outbound),
    )


def _parse_prefix(text: Any, vms: int, nodes: int) -> IPv4Network:
    network = IPv4Network(_word(text))
    if not naming.room_for(network, vms, nodes):
        raise ValueError(f"{network} is too small for the job")
    return network


def _parse_probe(tree: Mapping[str, Any]) -> ReachReport:
    lost, narrow, silent = (frozenset(map(_number, tree[key])) for key in ("lost", "narrow", "silent"))
    wrong = tuple(_word(one) for one in tree["wrong_names"])
    outbound = tree["outbound"] if tree["outbound"] is None else _word(tree["outbound"])
    return ReachReport(_number(tree["network"]), tuple(map(_number, tree["tried"])), lost, narrow, silent, wrong, bool(tree["deaf"]), outbound)


def _number(value: Any, highest: int = 0xFFFFFFFF_FFFFFFFF) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise ValueError(f"expected a number up to {highest}")
    return value


def _word(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"expected text, found {text!r}")
    return one_line(text)[:300]


def parse_links(text: str) -> dict[str, dict[str, Any]]:
    """Return each device's state and counters, from what `ip -json -statistics link show` prints."""
    found = {}
    for one in json.loads(text):
        stats = one["stats64"]
        found[one["ifname"]] = {
            "mtu": one["mtu"],
            "up": "UP" in one["flags"],
            "received": stats["rx"]["bytes"],
            "sent": stats["tx"]["bytes"],
            "dropped": stats["rx"]["dropped"] + stats["tx"]["dropped"] + stats["rx"]["errors"] + stats["tx"]["errors"],
        }
    return found


def choose_targets(members: Sequence[int], own: Sequence[int], most: int) -> tuple[int, ...]:
    """Return the VMs a node asks: all, or its own and others evenly spread, `most` in all."""
    if len(members) <= most:
        return tuple(members)
    others = [rank for rank in members if rank not in set(own)]
    wanted = max(most - len(own), 1)
    return tuple(sorted({*own, *(others[place * len(others) // wanted] for place in range(wanted))}))


SHOW, CHECK = "show", "check"

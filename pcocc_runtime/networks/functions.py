"""PCI functions of a node that are given to VMs as a whole: which VM gets which of those that Slurm gave the job."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.kinds import FunctionNetwork, GenericPci

DRIVER = "vfio-pci"


class Function(NamedTuple):
    """A PCI function. `number` is its place in its stock, `group` its IOMMU group, `others` the other devices in that.

    `numa` is its NUMA node, -1 where that is not known. One that no longer `answers` has not come back from a reset.
    """

    number: int
    address: str
    driver: str | None
    group: str
    others: tuple[str, ...]
    numa: int = -1
    answers: bool = True


class PhysicalFunction(NamedTuple):
    """A device with virtual functions, in their order, and its network interface, by which Linux sets what they are.

    An InfiniBand device has a GUID, an Ethernet device an MTU. `own` is its own function, which stays the node's.
    """

    interface: str
    functions: tuple[Function, ...]
    guid: int = 0
    mtu: int = 0
    own: Function | None = None


class Stock(NamedTuple):
    """What a node has of a GRES, or of one type of it, in the order of gres.conf.

    `name` is the name of the device whose functions they are, or that of the GRES itself. `host_driver` is the driver
    that the node itself uses.
    """

    name: str
    gres: str
    functions: tuple[Function, ...]
    host_driver: str | None = None


def stock_of(network: FunctionNetwork) -> str:
    """Return the name of the stock from which a network's functions are taken."""
    return f"network {network.name}" if isinstance(network, GenericPci) else network.host_device


def kind_of(gres: str) -> str:
    """Return the name of a GRES without its type: Slurm counts the devices of all types of a name together."""
    return gres.partition(":")[0]


class Wish(NamedTuple):
    """What VMs shall get from a stock: `ranks` has a VM's rank for each function. `source` is the network or device."""

    source: str
    stock: str
    gres: str
    ranks: tuple[int, ...]


class Given(NamedTuple):
    """A function that the VM of a rank gets, and the `source` of the wish that it fulfils."""

    source: str
    rank: int
    function: Function


def plan_given(wishes: Iterable[Wish], stocks: Sequence[Stock], told: str, node: str) -> tuple[Given, ...]:
    """Return which functions of a node its VMs get. `told` is slurmctld's text about the job there (`gres_detail_str`).

    The VM of the lowest rank takes first, from one NUMA node as far as possible: that with most of what it wants.
    NodeError when a function is missing or cannot be given to a VM.
    """
    wishes, wanted, own = tuple(wishes), Counter[str](), list[list[Function]]()
    for wish in wishes:
        wanted[wish.stock] += len(wish.ranks)
        own.append(_find_own(wish, stocks, told, wanted[wish.stock], node))
    taken, given = set[Function](), [list[Given]() for _wish in wishes]
    for rank in sorted({rank for wish in wishes for rank in wish.ranks}):
        open_ = [[one for one in some if one not in taken] for some in own]
        home = _find_home([(wish.stock, wish.ranks.count(rank), open_[place]) for place, wish in enumerate(wishes)])
        for place, wish in enumerate(wishes):
            near = sorted((one for one in open_[place] if one not in taken), key=lambda one: one.numa != home)
            for function in sorted(near[: wish.ranks.count(rank)], key=open_[place].index):
                fault = find_fault(function, wish.stock, node)
                if fault:
                    raise fault
                taken.add(function)
                given[place].append(Given(wish.source, rank, function))
    return tuple(one for some in given for one in some)


def _find_home(wants: Iterable[tuple[str, int, Sequence[Function]]]) -> int:
    """Return the NUMA node that has most of so many functions each of some stocks, the lowest of several."""
    counts, there = Counter[str](), dict[str, Sequence[Function]]()
    for stock, count, functions in wants:
        counts[stock] += count
        there[stock] = functions
    near = Counter[int]()
    for stock, functions in there.items():
        for numa, most in Counter(one.numa for one in functions).items():
            near[numa] += min(most, counts[stock])
    return min(near, key=lambda numa: (-near[numa], numa), default=-1)


def parse_gres(text: str, name: str) -> list[int]:
    """Return the places of a job's devices among a node's, from a text such as `nic:mlx5:2(IDX:0-1),gpu:1(IDX:3)`.

    `name` is the name of a GRES, with or without a type. Slurm numbers devices of all types of one name together.
    """
    found: list[int] = []
    for words, places in re.findall(r"([^,()]+)\(([^()]*)\)", text):
        if f"{words}:".startswith(f"{name}:"):
            listed = places.removeprefix("IDX:") if places.startswith("IDX:") else ""
            ranges = re.findall(r"(\d{1,5})(?:-(\d{1,5}))?", listed)
            found += [place for first, last in ranges for place in range(int(first), int(last or first) + 1)]
    return found


def _find_own(wish: Wish, stocks: Iterable[Stock], told: str, needed: int, node: str) -> list[Function]:
    """Return what the job has of a wish's stock, of which VMs need so many; the stocks of a GRES are counted on."""
    alike = [one for one in stocks if kind_of(one.gres) == kind_of(wish.gres)]
    shelf, places = [(one, function) for one in alike for function in one.functions], parse_gres(told, wish.gres)
    order = f"gres.conf must have the devices of GRES {wish.gres} that 'pcocc node devices' prints, in that order"
    for place in places:
        if place >= len(shelf):
            size = sum(one.name == wish.stock for one, _function in shelf)
            given = f"Slurm gives the job function number {place + 1} of {wish.stock} on {node}"
            raise NodeError(f"{given}, but there are only {size}", hint=order)
        found, function = shelf[place]
        if ":" in wish.gres and found.gres != wish.gres:
            message = f"Slurm gives the job {function.address} on {node} as {wish.gres}, but it is {found.gres}"
            raise NodeError(message, hint=order)
    own = [shelf[place][1] for place in places if shelf[place][0].name == wish.stock]
    if len(own) < needed:
        raise NodeError(
            f"the job has {len(own)} devices of GRES {wish.gres} on {node}, but its VMs there need {needed}",
            hint=f"ask Slurm for them with --gres={wish.gres}:{needed}; gres.conf must have File= for them",
        )
    return own


def find_twice(stocks: Iterable[Stock], node: str) -> NodeError | None:
    """Return why two stocks cannot both be given out, None when no function is in more than one."""
    seen = dict[str, str]()
    for one in stocks:
        for function in one.functions:
            if (first := seen.setdefault(function.address, one.name)) != one.name:
                message = f"{function.address} on {node} is in both {first} and {one.name}, so two jobs could get it"
                return NodeError(message, hint="name it in one of them only: pcocc-networks.yaml(5), pcocc.yaml(5)")
    return None


def find_fault(one: Function, device: str, node: str) -> NodeError | None:
    """Return why a function of a node's device cannot be given to a VM, None when it can."""
    shown = f"function {one.number} of {device} on {node} ({one.address})"
    if not one.answers:
        message = f"{shown} does not answer any more: it has not come back from a reset, and no VM can have it"
        return NodeError(message, hint="ask the admins to look into dmesg(1) there; only this device is concerned")
    if one.driver != DRIVER:
        message = f"{shown} is bound to {one.driver or 'no driver'} instead of {DRIVER}"
        return NodeError(message, hint="ask the admins to bind it before slurmd starts")
    if one.others:
        return NodeError(
            f"{shown} shares its IOMMU group with {', '.join(one.others)}, and cannot be given to a VM without them",
            hint="ask the admins to use another slot, or to turn on ACS in the firmware's settings",
        )
    return None


def parse_virtual(text: str) -> dict[int, str]:
    """Return what functions have by their numbers: GUIDs, or MAC address and VLAN; of `ip -json link show dev PF`."""
    found = dict[int, str]()
    for link in json.loads(text or "[]"):
        for one in link.get("vfinfo_list", ()):
            vlans = [each["vlan"] for each in one.get("vlan_list", (one,)) if each.get("vlan")]
            name = one.get("port guid") or one.get("address") or one.get("mac") or "-"
            found[one["vf"]] = " ".join([name, *(f"VLAN {vid}" for vid in vlans)])
    return found


def device_node(function: Function) -> str:
    """Return the file that a program opens to use the function."""
    return f"/dev/vfio/{function.group}"


def render_gres(stocks: Iterable[Stock]) -> list[str]:
    """Return a line of gres.conf for each stock, with its functions in their order."""
    lines = []
    for one in stocks:
        name, _, kind = one.gres.partition(":")
        words = f"Name={name} Type={kind}" if kind else f"Name={name}"
        if one.functions:
            lines.append(f"{words} File={','.join(map(device_node, one.functions))}")
    return lines

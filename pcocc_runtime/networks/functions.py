"""PCI functions of a node that are given to VMs as a whole: which VM gets which of those that Slurm gave the job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.kinds import FunctionNetwork, GenericPci

DRIVER = "vfio-pci"


class Function(NamedTuple):
    """A PCI function. `number` is its place in its stock, `group` its IOMMU group, `others` the other devices in that.

    `numa` is its NUMA node, -1 where that is not known.
    """

    number: int
    address: str
    driver: str | None
    group: str
    others: tuple[str, ...]
    numa: int = -1


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

    A wish takes from what earlier wishes have left, the lowest rank first. NodeError when a function is missing or
    cannot be given to a VM.
    """
    taken = set[tuple[str, int]]()
    given = list[Given]()
    for wish in wishes:
        alike = [one for one in stocks if kind_of(one.gres) == kind_of(wish.gres)]
        shelf = [(one, function) for one in alike for function in one.functions]
        for rank, place in zip(wish.ranks, _take(wish, shelf, told, taken, node), strict=True):
            fault = find_fault(shelf[place][1], wish.stock, node)
            if fault:
                raise fault
            given.append(Given(wish.source, rank, shelf[place][1]))
    return tuple(given)


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


def _take(
    wish: Wish, shelf: Sequence[tuple[Stock, Function]], told: str, taken: set[tuple[str, int]], node: str
) -> list[int]:
    """Return the next places of a GRES that no earlier wish has taken; its stocks stand one after the other."""
    count, kind, places = len(wish.ranks), kind_of(wish.gres), parse_gres(told, wish.gres)
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
    own = [place for place in places if shelf[place][0].name == wish.stock]
    free = [place for place in own if (kind, place) not in taken]
    if len(free) < count:
        needed = len(own) - len(free) + count
        raise NodeError(
            f"the job has {len(own)} devices of GRES {wish.gres} on {node}, but its VMs there need {needed}",
            hint=f"ask Slurm for them with --gres={wish.gres}:{needed}; gres.conf must have File= for them",
        )
    taken |= {(kind, place) for place in free[:count]}
    return free[:count]


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
    if one.driver != DRIVER:
        message = f"{shown} is bound to {one.driver or 'no driver'} instead of {DRIVER}"
        return NodeError(message, hint="ask the admins to bind it before slurmd starts")
    if one.others:
        return NodeError(
            f"{shown} shares its IOMMU group with {', '.join(one.others)}, and cannot be given to a VM without them",
            hint="ask the admins to use another slot, or to turn on ACS in the firmware's settings",
        )
    return None


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

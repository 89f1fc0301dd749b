"""The functions of InfiniBand devices that a job's VMs have on a node, and how they join its partitions.

A function is in a partition when it has one of the GUIDs that the subnet manager knows for it, and only the host
can set a function's GUID.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pcocc_runtime.addressing import partition_guid
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.devices import GivenDevices, encode_devices
from pcocc_runtime.documents.node import FunctionFacts
from pcocc_runtime.documents.work import Act
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.infiniband import parse_keys
from pcocc_runtime.networks.kinds import InfinibandNetwork

DRIVER = "vfio-pci"
_NO_GUID = (1 << 64) - 1  # of a function that has none


class Function(NamedTuple):
    """A virtual function: its number, PCI address, driver, IOMMU group with the other devices in it, and NUMA node.

    The NUMA node is -1 where it is not known.
    """

    number: int
    address: str
    driver: str | None
    group: str
    others: tuple[str, ...]
    numa: int = -1


class Hca(NamedTuple):
    """An InfiniBand device: its interface for IP, which Linux sets GUIDs through, and its functions in their order."""

    interface: str
    functions: tuple[Function, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """A network's partition on this node: its key, its device, and the device's functions by the rank of their VM."""

    spec: InfinibandNetwork
    key: int
    device: Hca
    functions: Mapping[int, Function]


def find_partitions(
    step: BootStep, networks: Iterable[InfinibandNetwork], sets: Mapping[str, tuple[str, ...]]
) -> dict[InfinibandNetwork, list[int]]:
    """Return the InfiniBand networks of a step's VMs, each with the ranks of those of its VMs that run on this node."""
    used = {name for set_name, _count in step.sets for name in sets.get(set_name, ())}
    return {
        one: [rank for rank in step.here.ranks if one.name in sets.get(step.set_of(rank), ())]
        for one in networks if one.name in used
    }  # fmt: skip


def plan_partitions(
    step: BootStep, wanted: Mapping[InfinibandNetwork, list[int]], devices: Mapping[str, Hca]
) -> tuple[Partition, ...]:
    """Return the partitions of a step, chosen by the licences and GRES that slurmctld says the job has.

    NodeError when these do not suffice.
    """
    assert step.place is not None
    taken: set[tuple[str, int]] = set()
    found = []
    for spec, ranks in wanted.items():
        if step.vm_count > spec.max_vms:
            raise NodeError(
                f"the job has {step.vm_count} VMs, but a cluster on network {spec.name!r} can have only {spec.max_vms}"
            )
        device, node, places = devices[spec.host_device], step.here.name, list[int]()
        if ranks:
            places = _take(spec, parse_gres(step.place.gres_on(node), spec.gres), len(ranks), taken, node)
        given = zip(ranks, places, strict=True)
        functions = {rank: _function(spec, device, place, node) for rank, place in given}
        found.append(Partition(spec, _find_key(spec, step.place.licences), device, functions))
    return tuple(found)


def _find_key(spec: InfinibandNetwork, licences: str) -> int:
    keys = parse_keys(licences, spec)
    if len(keys) != 1:
        many = "several licences of keys" if keys else "no licence of a key"
        raise NodeError(
            f"the job has {many} of network {spec.name!r}, but must have exactly one",
            hint="pcocc's filter adds it in slurmctld's job_submit.lua: is it loaded? run 'pcocc config check' there",
        )
    return keys[0]


def parse_gres(text: str, name: str) -> list[int]:
    """Return the indices of a job's devices among a node's, from a text such as `nic:mlx5:2(IDX:0-1),gpu:1(IDX:3)`.

    `name` is that of a GRES, with or without its type. There are none when the text has none of it.
    """
    found: list[int] = []
    for words, places in re.findall(r"([^,()]+)\(([^()]*)\)", text):
        if f"{words}:".startswith(f"{name}:"):
            listed = places.removeprefix("IDX:") if places.startswith("IDX:") else ""
            ranges = re.findall(r"(\d{1,5})(?:-(\d{1,5}))?", listed)
            found += [place for first, last in ranges for place in range(int(first), int(last or first) + 1)]
    return found


def _take(
    spec: InfinibandNetwork, places: Sequence[int], count: int, taken: set[tuple[str, int]], node: str
) -> list[int]:
    """Return the next devices of a GRES, as indices, that no other network has taken before."""
    free = [place for place in places if (spec.host_device, place) not in taken]
    needed = len(places) - len(free) + count
    if len(free) < count:
        raise NodeError(
            f"the job has {len(places)} devices of GRES {spec.gres} on {node}, but its VMs there need {needed}",
            hint=f"ask for them: --gres={spec.gres}:{needed}; gres.conf must have File= for them",
        )
    taken |= {(spec.host_device, place) for place in free[:count]}
    return free[:count]


def _function(spec: InfinibandNetwork, device: Hca, place: int, node: str) -> Function:
    if place >= len(device.functions):
        raise NodeError(
            f"Slurm gives the job function number {place + 1} of {spec.host_device} of {node}, "
            f"which has only {len(device.functions)}",
            hint=f"gres.conf must have as many devices of GRES {spec.gres} as there are functions, in the same order",
        )
    fault = find_fault(device.functions[place], spec.host_device, node)
    if fault:
        raise fault
    return device.functions[place]


def find_fault(one: Function, device: str, node: str) -> NodeError | None:
    """Return why a function of a node's device cannot be given to a VM, None when it can."""
    shown = f"function {one.number} of {device} on {node} ({one.address})"
    if one.driver != DRIVER:
        message = f"{shown} is bound to {one.driver or 'no driver'} instead of {DRIVER}"
        return NodeError(message, hint="ask the admins to bind it before slurmd starts")
    if one.others:
        return NodeError(
            f"{shown} is in one IOMMU group with {', '.join(one.others)}, and cannot be given to a VM without them",
            hint="ask the admins for another slot, or for ACS in the firmware's settings",
        )
    return None


def _given(partitions: Iterable[Partition]) -> Iterator[tuple[Partition, int, Function]]:
    return ((one, rank, function) for one in partitions for rank, function in one.functions.items())


def device_node(function: Function) -> str:
    """Return the device file that a program opens to use the function."""
    return f"/dev/vfio/{function.group}"


def render_joining(partitions: Iterable[Partition]) -> str:
    """Return the lines for ip(8) that put functions into partitions: each goes down, gets its GUIDs, and comes up."""
    return "".join(
        _line(one, function, "state disable")
        + _guids(one, function, *(partition_guid(one.spec.guid_prefix, one.key, rank, port) for port in (0, 1)))
        + _line(one, function, "state auto")
        for one, rank, function in _given(partitions)
    )  # fmt: skip


def render_leaving(partitions: Iterable[Partition]) -> str:
    """Return the lines for ip(8) that take functions out of any partition."""
    return "".join(
        _line(one, function, "state disable") + _guids(one, function, _NO_GUID, _NO_GUID)
        for one, _rank, function in _given(partitions)
    )


def _guids(one: Partition, function: Function, node: int, port: int) -> str:
    pairs = (("node_guid", node), ("port_guid", port))
    return "".join(_line(one, function, f"{word} {guid.to_bytes(8, 'big').hex(':')}") for word, guid in pairs)


def _line(one: Partition, function: Function, what: str) -> str:
    return f"link set dev {one.device.interface} vf {function.number} {what}\n"


def plan_partition_acts(partitions: Sequence[Partition], uid: int, acts: Sequence[Act]) -> tuple[Act, ...]:
    """Return a job's acts with those for its partitions added; the first of them records how to undo the others.

    Lines for ip(8) join those that there are, so that it does not run once more.
    """
    nodes = [device_node(function) for _one, _rank, function in _given(partitions)]
    if not nodes:
        return tuple(acts)
    given = encode_devices(GivenDevices(uid, nodes, render_leaving(partitions)))
    place = next((place for place, act in enumerate(acts) if act.kind == "ip" and not act.inside), None)
    joining = Act("ip", False, render_joining(partitions) + (acts[place].text if place is not None else ""))
    rest = [joining if index == place else act for index, act in enumerate(acts)]
    return (Act("devices", False, given), *([joining] if place is None else []), *rest)


def render_gres(networks: Sequence[InfinibandNetwork], devices: Mapping[str, Hca]) -> list[str]:
    """Return a line of gres.conf for each device, with its functions in their order."""
    lines = {}
    for one in networks:
        name, _, kind = one.gres.partition(":")
        words = f"Name={name} Type={kind}" if kind else f"Name={name}"
        lines[one.host_device] = (
            f"{words} File={','.join(map(device_node, devices[one.host_device].functions))}"
        )
    return list(lines.values())


def describe_functions(partitions: Iterable[Partition]) -> dict[int, tuple[FunctionFacts, ...]]:
    """Return facts about the functions that VMs have, by the VM's rank, in the order of the networks."""
    found: dict[int, tuple[FunctionFacts, ...]] = {}
    for one, rank, function in _given(partitions):
        digits = f"{partition_guid(one.spec.guid_prefix, one.key, rank, 1):016x}"
        guid = ":".join(digits[place : place + 4] for place in range(0, 16, 4))  # as in /sys/class/infiniband
        found[rank] = (*found.get(rank, ()), FunctionFacts(one.spec.name, one.key, function.address, guid))
    return found

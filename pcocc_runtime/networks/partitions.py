"""The InfiniBand partitions of a job's VMs, and how functions of a node join them.

A function is in a partition when it has one of the GUIDs that the subnet manager knows as its members. Only the host
can set a function's GUID.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pcocc_runtime.addressing import host_guid, partition_guid
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import Function, Given, PhysicalFunction
from pcocc_runtime.networks.infiniband import parse_keys
from pcocc_runtime.networks.kinds import HostInfiniband, InfinibandNetwork

_NO_GUID = (1 << 64) - 1  # what a function without a GUID has


@dataclass(frozen=True, slots=True)
class Partition:
    """A network's partition on this node: its key, the device, and the device's functions by the ranks of their VMs."""

    spec: InfinibandNetwork
    key: int
    device: PhysicalFunction
    functions: Mapping[int, Function]


def plan_partitions(
    step: BootStep, used: Iterable[InfinibandNetwork], devices: Mapping[str, PhysicalFunction], given: Iterable[Given]
) -> tuple[Partition, ...]:
    """Return the partitions of a step, and in each the functions of this node's VMs.

    slurmctld has told the step's licences. NodeError when it has no licence for a network, several, or too many VMs.
    """
    assert step.charge is not None
    given, found = tuple(given), []
    for spec in used:
        if step.vm_count > spec.max_vms:
            raise NodeError(
                f"the job has {step.vm_count} VMs, but a cluster on network {spec.name!r} can have only {spec.max_vms}",
                "ask for fewer VMs, or ask the admins to raise max-vms of that network",
            )
        functions = {one.rank: one.function for one in given if one.source == spec.name}
        found.append(Partition(spec, _find_key(spec, step.charge.licences), devices[spec.host_device], functions))
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


class Port(NamedTuple):
    """A function as ip(8) names it, and the GUIDs of its node and its port."""

    interface: str
    number: int
    guids: tuple[int, int]


def plan_ports(partitions: Iterable[Partition]) -> dict[tuple[str, int], Port]:
    """Return the functions that join partitions, by their network and their VM's rank."""
    return {
        (one.spec.name, rank): Port(
            one.device.interface, function.number,
            (_guid(one, rank, 0), _guid(one, rank, 1)),
        )
        for one in partitions
        for rank, function in one.functions.items()
    }  # fmt: skip


def _guid(one: Partition, rank: int, port: int) -> int:
    return partition_guid(one.spec.guid_prefix, one.key, rank, port)


def plan_host_ports(
    used: Iterable[HostInfiniband], devices: Mapping[str, PhysicalFunction], given: Iterable[Given]
) -> dict[tuple[str, int], Port]:
    """Return the functions that join their node's own partitions, by their network and their VM's rank."""
    specs = {one.name: one for one in used}
    return {
        (one.source, one.rank): Port(
            device.interface, one.function.number,
            (host_guid(device.guid, one.function.number, 0), host_guid(device.guid, one.function.number, 1)),
        )
        for one in given
        if one.source in specs
        for device in (devices[specs[one.source].host_device],)
    }  # fmt: skip


def render_joining(ports: Iterable[Port]) -> str:
    """Return the lines for ip(8) that put functions on the fabric: they go down, get their GUIDs, and come up again."""
    return "".join(
        _line(one, "state disable") + _guids(one, one.guids) + _line(one, "state auto") for one in ports
    )


def render_leaving(ports: Iterable[Port]) -> str:
    """Return the lines for ip(8) that take functions out of all partitions."""
    return "".join(_line(one, "state disable") + _guids(one, (_NO_GUID, _NO_GUID)) for one in ports)


def _guids(one: Port, guids: tuple[int, int]) -> str:
    pairs = zip(("node_guid", "port_guid"), guids, strict=True)
    return "".join(_line(one, f"{word} {guid.to_bytes(8, 'big').hex(':')}") for word, guid in pairs)


def _line(one: Port, what: str) -> str:
    return f"link set dev {one.interface} vf {one.number} {what}\n"


def render_guid(guid: int) -> str:
    """Return a GUID as /sys/class/infiniband shows it."""
    digits = f"{guid:016x}"
    return ":".join(digits[place : place + 4] for place in range(0, 16, 4))

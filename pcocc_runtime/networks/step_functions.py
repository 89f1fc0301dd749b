"""What root does for the PCI functions that a step's VMs have on a node, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pcocc_runtime.documents.devices import GivenDevices, encode_devices
from pcocc_runtime.documents.node import FunctionFacts
from pcocc_runtime.documents.work import Act
from pcocc_runtime.networks.functions import Function, Given, device_node
from pcocc_runtime.networks.partitions import Partition, Port, render_guid, render_joining, render_leaving
from pcocc_runtime.networks.sriov import EthernetPort, render_plugging, render_unplugging


class StepFunctions(NamedTuple):
    """The functions of the step's VMs on this node; those that join a fabric, by network and rank; its partitions.

    `ethernet` has the functions of Ethernet devices, by network and rank too.
    """

    given: tuple[Given, ...] = ()
    ports: Mapping[tuple[str, int], Port] = {}
    partitions: tuple[Partition, ...] = ()
    ethernet: Mapping[tuple[str, int], EthernetPort] = {}

    @property
    def functions(self) -> list[Function]:
        """Return all the functions."""
        return [one.function for one in self.given]


def describe_functions(found: StepFunctions) -> dict[int, tuple[FunctionFacts, ...]]:
    """Return what VMs and users are told of each VM's functions, by rank, in the order of networks and devices."""
    keys, told = {one.spec.name: one.key for one in found.partitions}, dict[int, tuple[FunctionFacts, ...]]()
    for one in found.given:
        place, numa = (one.source, one.rank), one.function.numa
        port, plug = found.ports.get(place), found.ethernet.get(place)
        facts = FunctionFacts(
            one.source, one.function.address, None if numa < 0 else numa, keys.get(one.source),
            guid=render_guid(port.guids[1]) if port else None,
            mac=plug.mac if plug else None, mtu=plug.mtu if plug else None,
        )  # fmt: skip
        told[one.rank] = (*told.get(one.rank, ()), facts)
    return told


def plan_function_acts(found: StepFunctions, uid: int, acts: Sequence[Act]) -> tuple[Act, ...]:
    """Return the acts for a job's networks, with those for its functions; how to undo these is kept before all else.

    Their lines for ip(8) are put before the first batch that runs in the host's namespace anyway, if there is one.
    """
    if not found.given:
        return tuple(acts)
    nodes, ports, plugs = map(device_node, found.functions), found.ports.values(), found.ethernet.values()
    undone, lines = render_leaving(ports) + render_unplugging(plugs), render_joining(ports) + render_plugging(plugs)
    given = Act("devices", False, encode_devices(GivenDevices(uid, [*nodes], undone)))
    if not lines:
        return (given, *acts)
    place = next((place for place, act in enumerate(acts) if act.kind == "ip" and not act.inside), None)
    joining = Act("ip", False, lines + (acts[place].text if place is not None else ""))
    rest = [joining if index == place else act for index, act in enumerate(acts)]
    return (given, *([joining] if place is None else []), *rest)

"""Which PCI functions of a node a step's VMs have: from the site's files, /sys, and what slurmctld tells of the job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.work import ChargeWanted
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import (
    PhysicalFunction,
    Stock,
    Wish,
    find_twice,
    kind_of,
    plan_given,
    stock_of,
)
from pcocc_runtime.networks.host_functions import read_devices, read_known, read_stocks
from pcocc_runtime.networks.kinds import (
    FunctionNetwork,
    GenericPci,
    HostInfiniband,
    InfinibandNetwork,
    SriovEthernet,
)
from pcocc_runtime.networks.partitions import (
    plan_host_ports,
    plan_partitions,
    plan_ports,
)
from pcocc_runtime.networks.sriov import plan_ethernet_ports
from pcocc_runtime.networks.step_functions import StepFunctions
from pcocc_runtime.site.resource_sets import no_device
from pcocc_runtime.site.site import Site


def find_step_functions(step: BootStep, site: Site) -> StepFunctions:
    """Return the functions of this node's VMs.

    ChargeWanted: slurmctld must tell the job's licences and GRES. NodeError: something is not as it must be.
    """
    used = _find_used(step, site)
    wishes = (*(_wish_network(step, site, one) for one in used), *_wish_devices(step, site))
    if not wishes:
        return StepFunctions()
    if step.charge is None:
        raise ChargeWanted
    node = step.here.name
    devices, stocks = _read_devices_and_stocks(wishes, used, site)
    fault = find_twice(stocks, node)
    if fault:
        raise fault
    given = plan_given([one for one in wishes if one.ranks], stocks, step.charge.gres_on(node), node)
    partitions = plan_partitions(step, [one for one in used if isinstance(one, InfinibandNetwork)], devices, given)
    hosts = plan_host_ports([one for one in used if isinstance(one, HostInfiniband)], devices, given)
    ethernet = plan_ethernet_ports(step, [one for one in used if isinstance(one, SriovEthernet)], devices, given)
    return StepFunctions(given, plan_ports(partitions) | hosts, partitions, ethernet)


def _find_used(step: BootStep, site: Site) -> list[FunctionNetwork]:
    """Return the networks of which the step's VMs, on whatever node, have functions."""
    names = {name for set_name, _count in step.sets for name in site.resource_sets.get(set_name, ())}
    return [one for one in site.all_networks.values() if isinstance(one, FunctionNetwork) and one.name in names]


def _wish_network(step: BootStep, site: Site, one: FunctionNetwork) -> Wish:
    ranks = [rank for rank in step.here.ranks if one.name in site.resource_sets.get(step.set_of(rank), ())]
    return Wish(one.name, stock_of(one), one.gres, tuple(ranks))


def _wish_devices(step: BootStep, site: Site) -> Iterator[Wish]:
    """Yield what this node's VMs are to have of each device of pcocc.yaml."""
    sets = {rank: site.all_sets.get(step.set_of(rank)) for rank in step.here.ranks}
    every = {rank: (*(one.devices if one else ()), *step.devices_of(rank)) for rank, one in sets.items()}
    wished = (name for one in step.devices for name, _count in one)
    unknown = next((name for name in wished if name not in site.devices), None)
    if unknown:
        raise NodeError(*no_device(unknown, site.devices), where=step.here.name)
    for name, pool in site.devices.items():
        ranks = tuple(
            rank
            for rank, counts in every.items()
            for wished, count in counts
            for _each in range(count)
            if wished == name
        )
        if ranks:
            yield Wish(name, name, pool.gres, ranks)


def _read_devices_and_stocks(
    wishes: Iterable[Wish], used: Sequence[FunctionNetwork], site: Site
) -> tuple[dict[str, PhysicalFunction], tuple[Stock, ...]]:
    """Return the devices of networks, and what the node has of the GRES that are wished, whatever their types."""
    kinds = {kind_of(one.gres) for one in wishes}
    every = [one for one in site.all_networks.values() if isinstance(one, FunctionNetwork)]
    networks = [one for one in every if kind_of(one.gres) in kinds]
    wanted, others = ([one for one in some if not isinstance(one, GenericPci)] for some in (used, networks))
    needed = {one.host_device for one in wanted}
    devices = read_devices(wanted) | read_known(one for one in others if one.host_device not in needed)[0]
    return devices, read_stocks(networks, [one for one in site.devices.values() if kind_of(one.gres) in kinds], devices)

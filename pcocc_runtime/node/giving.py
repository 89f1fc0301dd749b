"""Which PCI functions of a node a step's VMs have: from the site's files, /sys, and what slurmctld tells of the job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.work import ChargeWanted
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.functions import (
    Stock,
    Wish,
    find_twice,
    kind_of,
    plan_given,
    stock_of,
)
from pcocc_runtime.networks.host_functions import read_devices, read_others, read_stocks
from pcocc_runtime.networks.kinds import FunctionNetwork, GenericPci, HostInfiniband, InfinibandNetwork
from pcocc_runtime.networks.partitions import (
    Hca,
    plan_host_ports,
    plan_partitions,
    plan_ports,
)
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
    if step.place is None:
        raise ChargeWanted
    node, pools = step.here.name, [one for one in used if isinstance(one, InfinibandNetwork)]
    hcas, stocks = _read_hcas_and_stocks(wishes, used, site)
    fault = find_twice(stocks, node)
    if fault:
        raise fault
    given = plan_given([one for one in wishes if one.ranks], stocks, step.place.gres_on(node), node)
    partitions = plan_partitions(step, pools, hcas, given)
    hosts = [one for one in used if isinstance(one, HostInfiniband)]
    return StepFunctions(given, plan_ports(partitions) | plan_host_ports(hosts, hcas, given), partitions)


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


def _read_hcas_and_stocks(
    wishes: Iterable[Wish], used: Sequence[FunctionNetwork], site: Site
) -> tuple[dict[str, Hca], tuple[Stock, ...]]:
    """Return the InfiniBand devices, and what the node has of the GRES that are wished, whatever their types."""
    kinds = {kind_of(one.gres) for one in wishes}
    every = [one for one in site.all_networks.values() if isinstance(one, FunctionNetwork)]
    networks = [one for one in every if kind_of(one.gres) in kinds]
    wanted, others = (
        {one.host_device for one in some if not isinstance(one, GenericPci)} for some in (used, networks)
    )
    hcas = read_devices(wanted) | read_others(others - wanted)
    return hcas, read_stocks(networks, [one for one in site.devices.values() if kind_of(one.gres) in kinds], hcas)

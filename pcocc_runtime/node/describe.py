"""What root's helper leaves on a node for launchers and observers: the content of node.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from pcocc_runtime import naming
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.node import (
    BridgedFacts,
    InterfaceFacts,
    NetworkFacts,
    NodeFacts,
    PortForward,
    Reach,
    RoutedFacts,
    SegmentFacts,
)
from pcocc_runtime.documents.work import Held
from pcocc_runtime.networks.plan import NetworkPlan, Routed, Segment, find_runs, interfaces_of
from pcocc_runtime.site.site import Site


def describe_node(
    step: BootStep, plans: tuple[NetworkPlan, ...], site: Site, held: Held, has_kvm: bool
) -> NodeFacts:
    """Return what node.json says: of the node, the job's part on it, and what root holds for the job."""
    return NodeFacts(
        job=step.job, name=step.here.name, nodes=step.nodes, accel=held.accel, accel_why=held.accel_why,
        qemu=site.qemu, scratch=str(PurePath(site.scratch, naming.SCRATCH_NAME, str(step.job))),
        cache=site.image_cache, boot_timeout=site.boot_timeout, shutdown_grace=site.shutdown_grace,
        console_log=site.console_log, networks=tuple(map(describe_network, plans)),
        interfaces=describe_interfaces(plans, step, site.resource_sets),
        reach=describe_reach(plans, step, site.resource_sets),
        forwards=(
            tuple(PortForward(one.rank, one.vm_port, one.host_port) for one in held.nat.forwards)
            if held.nat
            else ()
        ),
        hugepages=site.hugepages, cpu_model=site.cpu_model,
        kvm_expected=has_kvm and site.accel != "tcg",
    )


def describe_network(plan: NetworkPlan) -> NetworkFacts:
    """Return the facts about a network."""
    spec, runs = plan.spec, plan.members.runs
    if isinstance(plan, Routed):
        return RoutedFacts(
            index=plan.index,
            name=spec.name,
            mtu=spec.mtu,
            members=runs,
            addresses=plan.spec.int_network,
            addresses6=plan.network6,
            domain=plan.spec.domain_name,
            search=plan.spec.dns_search,
            outbound=plan.spec.allow_outbound,
        )
    kind = SegmentFacts if isinstance(plan, Segment) else BridgedFacts
    return kind(index=plan.index, name=spec.name, mtu=spec.mtu, members=runs)


def describe_interfaces(
    plans: tuple[NetworkPlan, ...], step: BootStep, sets: Mapping[str, tuple[str, ...]]
) -> dict[int, tuple[InterfaceFacts, ...]]:
    """Return the interfaces of this node's VMs by rank, eth0 first."""
    return {
        rank: tuple(
            InterfaceFacts(plan.index, tap.mac) for plan, tap in interfaces_of(plans, step, sets, rank)
        )
        for rank in step.here.ranks
    }


def describe_reach(
    plans: tuple[NetworkPlan, ...], step: BootStep, sets: Mapping[str, tuple[str, ...]]
) -> tuple[Reach, ...]:
    """Return the networks that VMs are reached through: for each VM, the first L3 network of its resource set."""
    prefixes = {plan.spec.name: str(plan.spec.int_network) for plan in plans if isinstance(plan, Routed)}
    firsts = {name: next((one for one in sets[name] if one in prefixes), None) for name, _count in step.sets}
    return tuple(
        Reach(prefix, members)
        for network, prefix in prefixes.items()
        if (members := find_runs(step, {name for name, first in firsts.items() if first == network}))
    )

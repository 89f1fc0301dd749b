"""What root's helper would leave on a node, for tests.

The helper's own code makes it, so no test can invent something that the helper never writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.documents.node import NodeFacts
from pcocc_runtime.documents.work import Held
from pcocc_runtime.networks.kinds import BuildableNetwork
from pcocc_runtime.networks.nat import choose_nat
from pcocc_runtime.networks.plan import find_ways_out, plan_networks, plan_port_wishes
from pcocc_runtime.node.describe import describe_node
from pcocc_runtime.site.site import Site


def make_facts(
    sets: Mapping[str, tuple[str, ...]],
    counts: Mapping[str, int],
    networks: Sequence[BuildableNetwork] = (),
    layout: Mapping[str, tuple[int, ...]] | None = None,
    name: str | None = None,
    job: int = 12,
    site: Site | None = None,
    ipv6: bool = True,
    first_port: int = 0,
    accel: str = "tcg",
) -> NodeFacts:
    """Return the content of node.json for VMs of these resource sets, so many of each, on `name` of a layout (default:
    on one node).

    Ports below `first_port` are in use there.
    """
    places = layout or {"n1": tuple(range(sum(counts.values())))}
    nodes = tuple(NodeLayout(one, ranks) for one, ranks in places.items())
    step = BootStep(
        job=job, step=0, uid=2001, gid=2001, stepd=1, index=[*places].index(name or next(iter(places))), nodes=nodes,
        sets=tuple(counts.items()),
    )  # fmt: skip
    plans = plan_networks(step, {one.name: one for one in networks}, sets, ipv6)
    nat = choose_nat(plan_port_wishes(plans), None, [], lambda port: port >= first_port) if find_ways_out(plans) else None
    held = Held(nat, accel, "tests")
    return describe_node(step, plans, replace(site or Site(), resource_sets=dict(sets)), held, has_kvm=accel == "kvm")

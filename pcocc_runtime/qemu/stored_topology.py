"""The CPUs and NUMA nodes of a guest that goes on from a checkpoint: the stored ones, on what its task has now."""

from __future__ import annotations

from dataclasses import replace

from pcocc_runtime.documents.hardware import Topology


def keep_shape(stored: Topology, here: Topology) -> Topology:
    """Return what the guest had, on the CPUs and the host's nodes of a topology that it would have here.

    As many CPUs take the vCPUs in order; where the host's groups are others, the guest sees groups that are none.
    Where no CPU is the task's own, none is bound. Memory is where it was wished, if there is room.
    """
    hosts = [node.host for node in here.nodes] or [0]
    nodes = tuple(
        node._replace(host=hosts[place % len(hosts)], strict=False) for place, node in enumerate(stored.nodes)
    )
    levels = bool(stored.cpus) or stored.levels
    return replace(stored, cpus=here.cpus if levels else (), emulator=here.emulator, nodes=nodes, levels=levels)

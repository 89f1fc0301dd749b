"""The CPUs and NUMA nodes of a guest that goes on from a checkpoint: the stored ones, on what its task has now."""

from __future__ import annotations

from dataclasses import replace

from pcocc_runtime.documents.hardware import Topology


def keep_shape(stored: Topology, here: Topology) -> Topology:
    """Return the topology that the guest had, placed on the CPUs and NUMA nodes of the one that it would get here.

    The same number of CPUs takes the vCPUs in their order. Where the host groups its CPUs differently, the guest still
    sees its old groups. If the task has no CPUs of its own, none is bound. Memory is on its node if there is room.
    """
    hosts = [node.host for node in here.nodes] or [0]
    nodes = tuple(
        node._replace(host=hosts[place % len(hosts)], strict=False) for place, node in enumerate(stored.nodes)
    )
    levels = bool(stored.cpus) or stored.levels
    return replace(stored, cpus=here.cpus if levels else (), emulator=here.emulator, nodes=nodes, levels=levels)

"""Which pages of the host make guest memory: huge ones, if site or template want them and enough are free."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pcocc_runtime.documents.hardware import Allocation, Topology
from pcocc_runtime.errors import RequestError
from pcocc_runtime.qemu.memory import ORDINARY
from pcocc_runtime.qemu.topology import plan_nodes

SIZES = {"2M": 2048, "1G": 1048576}  # KiB
ReadFree = Callable[
    [int | None, int], int
]  # how many pages of so many KiB are free on a node, or on all of them


class Pages(NamedTuple):
    """A page's KiB, 0 for ordinary ones; the topology with its nodes; the guest's MiB; and a note for its user."""

    size: int
    topology: Topology
    memory: int
    note: str = ""


def plan_pages(
    wish: str, part: Allocation, topology: Topology, memory: int, read_free: ReadFree, template: str
) -> Pages:
    """Return the pages of a guest of `memory` MiB; RequestError when there are too few of a named size."""
    ordinary = _divide(part, topology, memory, 0)
    if wish == "off":
        return ordinary
    short = ""
    for name in ("1G", "2M") if wish == "auto" else (wish,):
        found = _divide(part, topology, memory, SIZES[name])
        if wish == "auto" and found.memory != ordinary.memory - ordinary.memory % ORDINARY.step:
            continue  # whole pages would leave some of the task's memory unused
        short = _find_shortage(name, found, read_free)
        if not short:
            return found
    if wish != "auto":
        raise RequestError(
            f"hugepages: {wish} of template {template!r}: {short}",
            "ask the admins to reserve more of them, use other nodes, or write 'hugepages: auto', which takes ordinary "
            "memory if there are too few",
        )
    return ordinary._replace(note=f"ordinary memory is used instead of huge pages: {short}")


def _divide(part: Allocation, topology: Topology, memory: int, page: int) -> Pages:
    step = max(page >> 10, ORDINARY.step)
    found = plan_nodes(part, topology, memory, step) if topology.cpus else topology
    if len(found.nodes) > 1:
        return Pages(page, found, sum(one.memory for one in found.nodes))
    whole = memory // step * step if page else memory
    return Pages(page, plan_nodes(part, topology, whole, step) if topology.cpus else topology, whole)


def _find_shortage(name: str, found: Pages, read_free: ReadFree) -> str:
    """Return which node has too few pages, and how many are free, in a clause; nothing when all have enough."""
    if not found.memory:
        return f"the guest's memory is smaller than a page of {name}"
    places: list[tuple[int | None, int]] = [(node.host, node.memory) for node in found.topology.nodes] or [
        (None, found.memory)
    ]
    for node, memory in places:
        needed, free = (memory << 10) // found.size, read_free(node, found.size)
        if free < needed:
            where = f"NUMA node {node}" if node is not None else "this host"
            return f"{where} has {free} free pages of {name}, but the guest needs {needed}"
    return ""

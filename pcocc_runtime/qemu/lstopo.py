"""What lstopo(1) of hwloc has written as XML about a guest, or about the host, compared with what was planned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from pcocc_runtime.cpulist import render_cpu_list
from pcocc_runtime.documents.hardware import VmTopology
from pcocc_runtime.errors import RequestError

# a package is a "Socket" before hwloc 1.11
_LEVELS = {"Package": "package", "Socket": "package", "L3Cache": "L3 cache", "Core": "core"}
_NODE = "NUMA node"


class Drawn(NamedTuple):
    """CPUs by number, each with the groups it is in, by level; and MiB of the memory of each NUMA node by number."""

    cpus: Mapping[int, Mapping[str, int]]
    memory: Mapping[int, int]


def parse_lstopo(data: bytes, name: str) -> Drawn:
    """Return what an XML file of lstopo's says; RequestError, with the file's name, when it is no such file."""
    try:
        root = ElementTree.fromstring(data)
        found = _draw(root)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise _refuse(name, str(error)) from None
    if root.tag != "topology" or not found.cpus:
        raise _refuse(name, "it names no CPUs")
    return found


def _refuse(name: str, why: str) -> RequestError:
    hint = "write it with 'lstopo --of xml FILE'"
    return RequestError(f"{name} is not an XML file that lstopo has written: {why}", hint)


def _draw(root: ElementTree.Element) -> Drawn:
    cpus: dict[int, dict[str, int]] = {}
    nodes: dict[int, tuple[tuple[int, ...], int]] = {}
    waiting: list[tuple[ElementTree.Element, dict[str, int]]] = [(root, {})]
    count = 0
    while waiting:
        one, around = waiting.pop()
        kind, count = one.get("type", ""), count + 1
        if kind in _LEVELS or (kind == "Cache" and one.get("depth") == "3"):
            around = {**around, _LEVELS.get(kind, "L3 cache"): count}
        if kind == "PU":
            cpus[int(one.get("os_index", ""))] = around
        if kind == "NUMANode":
            members, memory = parse_bitmap(one.get("cpuset", "")), int(one.get("local_memory", "0"))
            nodes[int(one.get("os_index", ""))] = members, memory >> 20
        waiting += [(inner, around) for inner in one if inner.tag == "object"]
    for number, (members, _memory) in nodes.items():
        for cpu in members:
            if cpu in cpus:
                cpus[cpu] = {**cpus[cpu], _NODE: number}
    return Drawn(cpus, {number: memory for number, (_members, memory) in nodes.items()})


def parse_bitmap(text: str) -> tuple[int, ...]:
    """Return the numbers in a set as hwloc writes it: words of 32 bits from the highest, `0x00000001,,0xf0`."""
    bits = 0
    for word in text.split(",") if text else ():
        bits = bits << 32 | (int(word, 16) if word else 0)
    return tuple(place for place in range(bits.bit_length()) if bits >> place & 1)


def find_guest_differences(planned: VmTopology, drawn: Drawn) -> list[str]:
    """Return a sentence for each thing in which a guest, by its own lstopo, is not what was planned."""
    guest, shape = planned.guest, planned.guest.shape
    count, spans = shape.cpus, {"package": shape.most // shape.sockets, "core": shape.threads}
    if guest.l3 and guest.cpus:
        spans["L3 cache"] = shape.threads * shape.cores * shape.clusters
    wanted = {level: {place: place // span for place in range(count)} for level, span in spans.items()}
    if len(guest.nodes) > 1:
        wanted[_NODE] = {place: number for number, node in enumerate(guest.nodes) for place in node.cpus}
    said = [*_compare("the guest", range(count), drawn, wanted)]
    if not said and len(guest.nodes) > 1:
        for number, node in enumerate(guest.nodes):
            seen = drawn.memory.get(number, 0)
            if not node.memory * 3 // 4 - 128 <= seen <= node.memory:  # firmware and the kernel itself take some
                said.append(f"the guest's node {number} has {seen} MiB by lstopo, where {node.memory} are planned")
    return said


def find_host_differences(planned: VmTopology, drawn: Drawn) -> list[str]:
    """Return a sentence for each thing in which the host, by its lstopo, is not what the plan took it for."""
    cpus = {cpu.number: cpu for cpu in planned.part.cpus}
    wanted: dict[str, Mapping[int, object]] = {
        "package": {number: cpu.package for number, cpu in cpus.items()},
        "core": {number: cpu.core for number, cpu in cpus.items()},
        "L3 cache": {number: ("none", number) if cpu.l3 is None else cpu.l3 for number, cpu in cpus.items()},
    }
    if len(planned.part.nodes) > 1:
        wanted[_NODE] = {number: cpu.node for number, cpu in cpus.items()}
    return [*_compare("the host", cpus, drawn, wanted)]


def _compare(
    whose: str, own: Iterable[int], drawn: Drawn, wanted: Mapping[str, Mapping[int, object]]
) -> Iterator[str]:
    cpus = [*own]
    missing = [cpu for cpu in cpus if cpu not in drawn.cpus]
    if missing:
        yield f"lstopo knows no CPUs {render_cpu_list(missing)} of {whose}"
        return
    for level, groups in wanted.items():
        here = {cpu: drawn.cpus[cpu].get(level, -1 - cpu) for cpu in cpus}
        seen, planned = _group(cpus, here), _group(cpus, groups)
        if seen != planned:
            yield f"CPUs of {whose} by {level} are {_render(seen)} by lstopo, where {_render(planned)} are planned"


def _group(cpus: Sequence[int], labels: Mapping[int, object]) -> list[tuple[int, ...]]:
    """Return the CPUs that have the same label, groups in the order of their first CPUs."""
    found: dict[object, list[int]] = {}
    for cpu in cpus:
        found.setdefault(labels.get(cpu), []).append(cpu)
    return sorted(tuple(sorted(members)) for members in found.values())


def _render(groups: Sequence[tuple[int, ...]]) -> str:
    return " ".join(f"[{render_cpu_list(one)}]" for one in groups)

"""A running QEMU compared with the topology planned for it: what the operation @topology shows and judges."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from pcocc_runtime.cpulist import parse_cpu_list, render_cpu_list
from pcocc_runtime.documents.hardware import HostCpu, VmTopology
from pcocc_runtime.documents.topology_answer import (
    Lying,
    OtherThread,
    ShownNode,
    ShownVcpu,
    TopologyAnswer,
)
from pcocc_runtime.tables import columns

_LEVELS = (
    "socket-id", "die-id", "module-id", "core-id", "thread-id",
)  # QEMU's names, from the outermost (qemu-qmp-ref, query-cpus-fast)


_HEADER = (
    *("vCPU", "socket", "die", "core", "thread", "node", "|"),
    *("CPU", "socket", "die", "core", "node", "L3", "|", "may run on"),
)


class Vcpu(NamedTuple):
    """A vCPU as QEMU has it: its thread, its place by QEMU's names of the levels, and the host's CPUs it may run on."""

    thread: int
    place: Mapping[str, int]
    allowed: tuple[int, ...]


class Observed(NamedTuple):
    """What runs: the vCPUs in order, QEMU's memory, the CPUs of its first thread, and its other threads."""

    vcpus: tuple[Vcpu, ...]
    memory: tuple[Lying, ...]
    emulator: tuple[int, ...]
    others: tuple[OtherThread, ...] = ()


def parse_vcpus(
    answer: Sequence[Mapping[str, Any]], allowed: Mapping[int, tuple[int, ...]]
) -> tuple[Vcpu, ...]:
    """Return the vCPUs of QMP's query-cpus-fast; `allowed` has the CPUs of each thread."""
    ordered = sorted(answer, key=lambda one: int(one["cpu-index"]))
    return tuple(
        Vcpu(one["thread-id"], one.get("props", {}), allowed.get(one["thread-id"], ())) for one in ordered
    )


def parse_numa_maps(text: str) -> tuple[Lying, ...]:
    """Return where memory lies, by policy and page size, from /proc/PID/numa_maps (numa(7)), in whole MiB."""
    found: dict[tuple[str, int], dict[int, int]] = {}
    for line in text.splitlines():
        _address, policy, *words = [*line.split(), ""]
        size = re.search(r"kernelpagesize_kB=(\d+)", line)
        for word in words if size else ():
            if pages := re.fullmatch(r"N(\d+)=(\d+)", word):
                nodes = found.setdefault((policy, int(size[1]) if size else 4), {})
                nodes[int(pages[1])] = nodes.get(int(pages[1]), 0) + int(pages[2])
    sizes = (
        (policy, page, {node: pages * page >> 10 for node, pages in sorted(nodes.items())})
        for (policy, page), nodes in sorted(found.items())
    )
    return tuple(
        Lying(policy, page, {node: size for node, size in nodes.items() if size})
        for policy, page, nodes in sizes
        if any(nodes.values())
    )


def find_differences(planned: VmTopology, seen: Observed) -> list[str]:
    """Return a sentence for each thing that is not as planned."""
    return [*_judge_cpus(planned, seen), *_judge_memory(planned, seen)]


def _judge_cpus(planned: VmTopology, seen: Observed) -> Iterator[str]:
    guest = planned.guest
    if len(seen.vcpus) != guest.shape.cpus:
        yield f"QEMU has {len(seen.vcpus)} vCPUs, but {guest.shape.cpus} are planned"
        return
    nodes = {place: number for number, node in enumerate(guest.nodes) for place in node.cpus}
    taken = {
        place
        for place, vcpu in enumerate(seen.vcpus)
        if guest.cpus and vcpu.allowed and guest.cpus[place] not in vcpu.allowed
    }
    if taken:
        yield _tell_taken(planned, seen, taken)
    for place, vcpu in enumerate(seen.vcpus):
        if guest.cpus and place not in taken and vcpu.allowed != (guest.cpus[place],):
            where = render_cpu_list(vcpu.allowed) or "that are not known"
            yield f"vCPU {place} may run on CPUs {where}, but belongs on {guest.cpus[place]}"
        wanted = _plan_place(planned, place).items() if guest.cpus else ()
        wrong = [name for name, value in wanted if vcpu.place.get(name, 0) != value]
        if wrong:
            found = ", ".join(f"{name} is {vcpu.place.get(name)}" for name in wrong)
            yield f"vCPU {place} is not where it is planned: {found}"
        if len(guest.nodes) > 1 and vcpu.place.get("node-id") != nodes[place]:
            yield f"vCPU {place} is on the guest's node {vcpu.place.get('node-id')}, but belongs on {nodes[place]}"
    if guest.emulator and seen.emulator != guest.emulator:
        where, own = render_cpu_list(seen.emulator), render_cpu_list(guest.emulator)
        yield f"QEMU's own threads may run on CPUs {where}, but belong on {own}"
    for one in seen.others if guest.emulator else ():
        if not {*one.allowed} <= {*guest.emulator}:
            where, own = render_cpu_list(one.allowed) or "that are not known", render_cpu_list(guest.emulator)
            yield f"QEMU's thread {one.name!r} may run on CPUs {where}, but belongs on {own}"


def _tell_taken(planned: VmTopology, seen: Observed, places: Set[int]) -> str:
    """Return the sentence about vCPUs that may not run on their CPUs: `scontrol update` can take CPUs from a job."""
    own = render_cpu_list(planned.guest.cpus[place] for place in places)
    where = render_cpu_list({cpu for place in places for cpu in seen.vcpus[place].allowed})
    return (
        f"the task may no longer run on CPUs {own}, where vCPUs {render_cpu_list(places)} belong: "
        f"they may run on CPUs {where}"
    )


def _plan_place(planned: VmTopology, place: int) -> dict[str, int]:
    """Return a vCPU's place on each level, as QEMU numbers them."""
    shape = planned.guest.shape
    found, rest = dict[str, int](), place
    for name, size in zip(
        reversed(_LEVELS), (shape.threads, shape.cores, shape.clusters, shape.dies, shape.sockets), strict=True
    ):
        rest, found[name] = divmod(rest, size)
    return found


def _judge_memory(planned: VmTopology, seen: Observed) -> Iterator[str]:
    bound = {f"bind:{node.host}": node for node in planned.guest.nodes if node.memory and node.strict}
    for policy, node in bound.items() if planned.binds else ():
        lying = [one for one in seen.memory if one.policy == policy]
        if not lying:
            yield f"no memory is bound to the host's node {node.host}"
        for one in lying:
            for other, size in one.nodes.items():
                if other != node.host:
                    yield f"{size} MiB that are bound to the host's node {node.host} lie on node {other}"
    if planned.page and not any(one.page == planned.page for one in seen.memory):
        yield f"no memory is in pages of {_size(planned.page)}"


def render_text(vm: str, node: str, planned: VmTopology, seen: Observed) -> str:
    """Return the host's part and the guest side by side, as text."""
    guest, cpus = planned.guest, {cpu.number: cpu for cpu in planned.part.cpus}
    lines = [f"{vm} on {node}: {guest.shape.cpus} CPUs, {planned.accel}, -cpu {planned.cpu}\n\n"]
    rows: list[tuple[str, ...]] = [_HEADER]
    homes = {place: str(node.host) for node in guest.nodes for place in node.cpus}
    for place, vcpu in enumerate(seen.vcpus):
        host = cpus.get(guest.cpus[place]) if guest.cpus else None
        theirs = [
            str(vcpu.place.get(name, 0)) for name in ("socket-id", "die-id", "core-id", "thread-id", "node-id")
        ]
        rows.append(
            (str(place), *theirs, "|", *_host_words(host, homes.get(place)), "|", render_cpu_list(vcpu.allowed))
        )
    lines += [columns(rows), "\n"]
    lines += [
        f"node {number}: {one.memory} MiB of the host's node {one.host}\n"
        for number, one in enumerate(guest.nodes)
    ]
    lines += [f"{one.policy}, pages of {_size(one.page)}: {_render_lying(one)}\n" for one in seen.memory]
    lines += [f"{one}\n" for one in planned.devices]
    threads = [OtherThread("QEMU's main thread", seen.emulator), *dict.fromkeys(seen.others)]
    lines += [f"{one.name} may run on {render_cpu_list(one.allowed)}\n" for one in threads]
    lines += [f"not as on the host: {one.level}: {one.why}\n" for one in guest.flattened]
    return "".join(lines)


def _render_lying(one: Lying) -> str:
    return ", ".join(f"{size} MiB on node {where}" for where, size in one.nodes.items())


def _host_words(cpu: HostCpu | None, node: str | None) -> tuple[str, ...]:
    if cpu is None:
        return ("any", *["-"] * 5)
    return (
        *map(str, (cpu.number, cpu.package, cpu.die, cpu.core)),
        node or ("-" if cpu.node is None else str(cpu.node)),
        "-" if cpu.l3 is None else str(cpu.l3),
    )


def _size(page: int) -> str:
    return f"{page >> 20}G" if page >> 20 else f"{page >> 10}M" if page >> 10 else f"{page}K"


def plan_topology_answer(
    vm: str, node: str, planned: VmTopology, seen: Observed, differences: Sequence[str]
) -> TopologyAnswer:
    """Return the same for programs."""
    guest, cpus = planned.guest, {cpu.number: cpu for cpu in planned.part.cpus}
    return TopologyAnswer(
        vm, node, planned.accel, planned.cpu, guest.shape,
        tuple(
            ShownVcpu(one.place, cpus[guest.cpus[place]] if guest.cpus else None, one.allowed)
            for place, one in enumerate(seen.vcpus)
        ),
        tuple(ShownNode(one.host, one.cpus, one.memory) for one in guest.nodes),
        guest.distances, seen.memory, seen.emulator, planned.devices, seen.others, guest.flattened,
        tuple(differences),
    )


def parse_allowed(status: str) -> tuple[int, ...]:
    """Return the CPUs that a thread may run on, by /proc/PID/task/TID/status."""
    line = next((line for line in status.splitlines() if line.startswith("Cpus_allowed_list:")), "")
    return parse_cpu_list(line.partition(":")[2])

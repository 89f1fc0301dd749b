"""The operation `@topology`: what a VM holds of its node, and what its guest sees, planned and found."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pcocc_runtime.documents.hardware import MAX_TOPOLOGY, TOPOLOGY_FILE, VmTopology, decode_topology
from pcocc_runtime.documents.topology_answer import OtherThread, encode_topology_answer
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.qemu.lstopo import Drawn, find_guest_differences, find_host_differences, parse_lstopo
from pcocc_runtime.qemu.observed import (
    Observed,
    find_differences,
    parse_allowed,
    parse_numa_maps,
    parse_vcpus,
    plan_topology_answer,
    render_text,
)
from pcocc_runtime.steps.qemu import Monitor
from pcocc_runtime.system import regular

_CHECK, _JSON = "--check", "--json"
_GUEST, _HOST = "--guest-lstopo", "--host-lstopo"
_MAX_XML = 16 * 1024 * 1024  # bytes; 256 CPUs take a quarter of one MiB


class TopologyWish(NamedTuple):
    """What is wanted: exit status 1 on a difference, JSON, and files of lstopo's to compare."""

    check: bool = False
    json: bool = False
    guest: str = ""
    host: str = ""


def check_words(words: Sequence[str]) -> TopologyWish:
    """Return what is wanted."""
    files = dict(word.split("=", 1) for word in words if word.startswith((f"{_GUEST}=", f"{_HOST}=")))
    plain = {word for word in words if word.partition("=")[0] not in files}
    if not plain <= {_CHECK, _JSON} or not all(files.values()):
        raise RequestError(
            f"@topology takes {_CHECK}, {_JSON}, {_GUEST}=FILE and {_HOST}=FILE", "this is what 'pcocc topology' runs"
        )
    return TopologyWish(_CHECK in plain, _JSON in plain, files.get(_GUEST, ""), files.get(_HOST, ""))


def operate(job: int, vm: str, wish: TopologyWish) -> int:
    """Show it with each difference; with `check`, fail when there is one."""
    drawn = {name: _read_lstopo(name) for name in (wish.guest, wish.host) if name}
    with Monitor(job, vm) as monitor:
        planned = _read_planned(monitor.directory, vm)
        seen = _observe(planned.pid, monitor.command("query-cpus-fast"))
    node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    differences = find_differences(planned, seen)
    differences += find_guest_differences(planned, drawn[wish.guest]) if wish.guest else []
    differences += find_host_differences(planned, drawn[wish.host]) if wish.host else []
    if wish.json:
        answer = plan_topology_answer(vm, node, planned, seen, differences)
        sys.stdout.write(encode_topology_answer(answer))
    else:
        sys.stdout.write(render_text(vm, node, planned, seen))
        sys.stdout.write("".join(f"{vm}: FAILED: {one}\n" for one in differences))
        if wish.check and not differences:
            sys.stdout.write(f"{vm}: ok: it runs as it is planned\n")
    return int(wish.check and bool(differences))


def _read_lstopo(name: str) -> Drawn:
    data = regular.read_start(Path(name), _MAX_XML)
    if data is None:
        raise RequestError(f"there is no file {name} on {os.uname().nodename}, where the VM runs")
    return parse_lstopo(data, name)


def _read_planned(directory: str, vm: str) -> VmTopology:
    path = Path(directory, TOPOLOGY_FILE)
    data = regular.read_start(path, MAX_TOPOLOGY)
    try:
        return decode_topology(data or b"")
    except ValueError as error:
        raise NodeError(
            f"{path} cannot be read: {error}", f"was pcocc changed since {vm} was booted? start a new job"
        ) from None


def _observe(pid: int, vcpus: Any) -> Observed:
    """Return what /proc says about QEMU; a thread that has ended meanwhile is left out."""
    allowed, names = {}, {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            names[int(thread)] = Path(f"/proc/{pid}/task/{thread}/comm").read_text().rstrip("\n")
            allowed[int(thread)] = parse_allowed(Path(f"/proc/{pid}/task/{thread}/status").read_text())
        except OSError:
            continue
    maps = Path(f"/proc/{pid}/numa_maps")
    memory = parse_numa_maps(maps.read_text()) if maps.exists() else ()  # a kernel without NUMA has none
    found = parse_vcpus(vcpus, allowed)
    known = {pid, *(one.thread for one in found)}
    others = sorted(OtherThread(names[one], where) for one, where in allowed.items() if one not in known)
    return Observed(found, memory, allowed.get(pid, ()), tuple(others))

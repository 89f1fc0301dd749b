"""Ports of InfiniBand as the guests of a node see them: asked by ssh, over the connection that the job's steps use."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from pcocc_runtime import naming
from pcocc_runtime.documents.login import KEY_FILE
from pcocc_runtime.documents.members import MEMBERS_FILE, decode_members
from pcocc_runtime.documents.node import FunctionFacts, NodeFacts
from pcocc_runtime.documents.node_answer import PortReport
from pcocc_runtime.documents.reach import address_of
from pcocc_runtime.guest.ports import ASK_PORTS, GuestPort, parse_ports, parse_state
from pcocc_runtime.guest.ssh import ssh_argv
from pcocc_runtime.observe import probes

_SECONDS = 15.0  # an emulated guest is slow to start a shell


def ask_ports(node: NodeFacts, sys: Path = Path("/sys")) -> tuple[PortReport, ...]:
    """Return what the guests of a node's VMs that are on a fabric say of their ports; nothing where there are none."""
    asked = [rank for rank, every in sorted(node.functions.items()) if any(one.guid for one in every)]
    heard = probes.ask_all(asked, lambda rank: _ask(node, rank))
    return tuple(
        _report(rank, one, found, sys)
        for rank, found in zip(asked, heard, strict=True)
        for one in node.functions[rank]
        if one.guid
    )


def _report(rank: int, one: FunctionFacts, found: dict[str, GuestPort] | str, sys: Path) -> PortReport:
    paths = sorted((sys / "bus/pci/devices" / one.address / "physfn/infiniband").glob("*/ports/1/state"))
    uplink = parse_state(paths[0].read_text()) if paths else None
    report = PortReport(rank, one.source, str(one.guid), one.key, uplink=uplink)
    if isinstance(found, str):
        return replace(report, trouble=found)
    port = found.get(report.guid)
    return replace(report, state=port.state, keys=port.keys) if port else report


def _ask(node: NodeFacts, rank: int) -> dict[str, GuestPort] | str:
    """Return the ports of a VM by GUID, or why it does not tell them."""
    directory = Path(naming.job_dir(node.job))
    try:
        members = decode_members((directory / MEMBERS_FILE).read_text())
    except (OSError, ValueError):
        return "its cluster has not booted"
    address, user = address_of(members.networks, rank), members.find_user(rank)
    if not address or not user:
        return "it has no L3 network, by which it could be asked"
    control = directory / naming.vm_name(rank) / "ssh"
    argv = ssh_argv(user, address, str(directory / KEY_FILE), "/dev/null", str(control), (), [ASK_PORTS])
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return f"no answer by ssh within {_SECONDS:g} s"
    if done.returncode:
        return "its user cannot log in by ssh"
    return parse_ports(done.stdout.decode(errors="replace"))

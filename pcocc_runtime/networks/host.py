"""Facts about the host that a job's networks are made on; reading them needs no privilege."""

from __future__ import annotations

import os
import socket

from pcocc_runtime import naming
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import host_bridges
from pcocc_runtime.networks.acts import HostFacts
from pcocc_runtime.networks.plan import Bridged, NetworkPlan
from pcocc_runtime.system import process, sysctl

_TUN = "/dev/net/tun"


def read_host(step: BootStep, plans: tuple[NetworkPlan, ...]) -> HostFacts:
    """Return the facts that plans are made from; NodeError when a node's name or a bridge does not fit."""
    if any(plan.taps for plan in plans) and not os.path.exists(_TUN):
        message = f"{os.uname().nodename} cannot make tap devices: {_TUN} does not exist"
        raise NodeError(message, hint="ask the admins to load the kernel module tun there")
    peers = {node.name: _resolve(node.name) for node in step.peers}
    return HostFacts(
        forwards=forwards(),
        closed=tuple(_find_closed()),
        peers=peers,
        source=_find_own(step.here.name) if peers else None,
        rules=process.run(["ip", "-json", "rule", "show"]),
        machine=os.uname().machine,
        bridges=_read_bridges(step, plans),
    )


def forwards() -> bool:
    """Tell whether the host routes IPv4 packets between all its interfaces."""
    return sysctl.read("ipv4/ip_forward") == "1"


def _find_closed() -> list[str]:
    """Return the host's interfaces whose packets it would not forward: replies to VMs may arrive on any."""
    if forwards():
        return []
    ours = naming.HOST_UPLINKS.rstrip("*")
    names = [name for name in sysctl.list_routing_interfaces() if not name.startswith(ours)]
    return [name for name in names if sysctl.read(f"ipv4/conf/{name}/forwarding") != "1"]


def _read_bridges(step: BootStep, plans: tuple[NetworkPlan, ...]) -> dict[str, host_bridges.Bridge]:
    """Return the host's bridges, once they are known to be fit for the plans."""
    used = [plan for plan in plans if isinstance(plan, Bridged) and plan.taps]
    if not used:
        return {}
    shown = process.run(
        ["ip", "-json", "-details", "link", "show", "type", "bridge"]
    )
    bridges = host_bridges.parse_bridges(shown)
    host_bridges.ensure_fit(used, bridges, step.here.name)
    return bridges


def _resolve(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_DGRAM)[0][4][0])
    except OSError:
        raise NodeError(
            f"{os.uname().nodename} cannot resolve the name of the job's node {name}",
            hint="each NodeName of slurm.conf must be in DNS or /etc/hosts of every node",
        ) from None


def _find_own(name: str) -> str | None:
    """Return the address the job's other nodes expect this one's packets from; None leaves it to the kernel.

    A node often has its own name in /etc/hosts as 127.0.1.1: then the kernel chooses by the route to the peer.
    """
    address = _resolve(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return None
    return None if address.startswith("127.") else address

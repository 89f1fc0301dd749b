"""The job's way out of its namespace on a node: the slot its veth takes, and the host ports that lead to its VMs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.kinds import ReverseNat
from pcocc_runtime.networks.plan import NetworkPlan, Tap


@dataclass(frozen=True, slots=True)
class Forward:
    """A TCP port of the node that leads to a port of a VM, in the job's `network`-th network."""

    network: int
    rank: int
    vm_port: int
    host_port: int


@dataclass(frozen=True, slots=True)
class Nat:
    """What a job holds of this node: a pair of link-local addresses, and TCP ports."""

    slot: int
    forwards: tuple[Forward, ...] = ()


def parse_nat(raw: Any) -> Nat | None:
    """Return what root's own record of a job, decoded from JSON, says it holds."""
    return None if raw is None else Nat(raw["slot"], tuple(Forward(**one) for one in raw["forwards"]))


def needs_uplink(plans: Iterable[NetworkPlan]) -> bool:
    """Tell whether anything may pass between the job's namespace and the host's."""
    return any(plan.spec.layer == "L3" and (plan.spec.allow_outbound or plan.spec.reverse_nat) for plan in plans)


def choose_nat(
    plans: tuple[NetworkPlan, ...], old: Nat | None, others: Collection[Nat], is_free: Callable[[int], bool]
) -> Nat | None:
    """Return what the job shall hold beside `others` of this node; what it held before, where that still serves.

    `is_free` tells whether nothing on the host uses a TCP port. NodeError: all slots or a range of ports are taken.
    """
    if not needs_uplink(plans):
        return None
    held = list(old.forwards if old else ())
    taken = {forward.host_port for one in (*others, *([old] if old else [])) for forward in one.forwards}
    forwards = []
    for plan, tap, rule in _wanted(plans):
        ports = range(rule.min_host_port, rule.max_host_port + 1)
        kept = [one for one in held if (one.network, one.rank, one.vm_port) == (plan.index, tap.rank, rule.vm_port)]
        port = next((one.host_port for one in kept if one.host_port in ports), None)
        forward = Forward(plan.index, tap.rank, rule.vm_port, port or _choose_port(ports, taken, is_free, plan.spec.name))
        if port:
            held.remove(forward)
        taken.add(forward.host_port)
        forwards.append(forward)
    return Nat(old.slot if old else _choose_slot({other.slot for other in others}), tuple(forwards))


def _wanted(plans: tuple[NetworkPlan, ...]) -> list[tuple[NetworkPlan, Tap, ReverseNat]]:
    routed = [plan for plan in plans if plan.spec.layer == "L3"]
    return [(plan, tap, rule) for plan in routed for tap in plan.taps for rule in plan.spec.reverse_nat]


def _choose_slot(taken: set[int]) -> int:
    for slot in range(naming.UPLINK_SLOTS):
        if slot not in taken:
            return slot
    raise NodeError(f"{len(taken)} jobs of this node have a way out already", hint=f"look for leftovers in {naming.STATE_DIR}")


def _choose_port(ports: range, taken: set[int], is_free: Callable[[int], bool], network: str) -> int:
    for port in ports:
        if port not in taken and is_free(port):
            return port
    raise NodeError(
        f"no port of this node is free for reverse-nat of network {network!r}: {ports[0]} to {ports[-1]} are all in use",
        hint="run fewer VMs on a node, or have min-host-port and max-host-port changed in /etc/pcocc/networks.yaml",
    )

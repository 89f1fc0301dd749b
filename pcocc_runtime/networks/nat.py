"""What a job takes of its node: a slot, from which its way out has addresses, and host ports that lead to its VMs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from pcocc_runtime import naming
from pcocc_runtime.documents.work import Forward, Nat, PortWish
from pcocc_runtime.errors import NodeError


def choose_nat(
    wishes: Sequence[PortWish], old: Nat | None, others: Collection[Nat], is_free: Callable[[int], bool]
) -> Nat:
    """Return what the job shall hold, beside what `others` hold on this node; what it held before, it keeps if it can.

    `is_free` tells whether a TCP port of the host is unused. NodeError: all slots or a range of ports are taken.
    """
    held = list(old.forwards if old else ())
    taken = {forward.host_port for one in (*others, *([old] if old else [])) for forward in one.forwards}
    forwards = []
    for wish in wishes:
        ports = range(wish.low, wish.high + 1)
        kept = [one for one in held if (one.network, one.rank, one.vm_port) == (wish.network, wish.rank, wish.vm_port)]
        port = next((one.host_port for one in kept if one.host_port in ports), None)
        forward = Forward(wish.network, wish.rank, wish.vm_port, port or _choose_port(ports, taken, is_free, wish.name))
        if port:
            held.remove(forward)
        taken.add(forward.host_port)
        forwards.append(forward)
    return Nat(old.slot if old else _choose_slot({other.slot for other in others}), tuple(forwards))


def _choose_slot(taken: set[int]) -> int:
    for slot in range(naming.UPLINK_SLOTS):
        if slot not in taken:
            return slot
    hint = f"look for leftovers in {naming.STATE_DIR}"
    raise NodeError(f"{len(taken)} jobs with a way out run on this node, and it has room for no more", hint)


def _choose_port(ports: range, taken: set[int], is_free: Callable[[int], bool], network: str) -> int:
    for port in ports:
        if port not in taken and is_free(port):
            return port
    raise NodeError(
        f"no port from {ports[0]} to {ports[-1]} is free on this node, for reverse-nat of network {network!r}",
        hint="run fewer VMs per node, see who holds ports there (ss -ltnp), or widen the range in networks.yaml",
    )

"""What a node asks in the networks of a job, and what ip(8) tells it of their devices."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pcocc_runtime.documents.node_answer import NetDevice


def parse_links(text: str) -> dict[str, NetDevice]:
    """Return each device's state and counters, from what `ip -json -statistics link show` prints."""
    found = {}
    for one in json.loads(text):
        received, sent = one["stats64"]["rx"], one["stats64"]["tx"]
        dropped = sum(way[key] for way in (received, sent) for key in ("dropped", "errors"))
        found[one["ifname"]] = NetDevice(
            one["mtu"], "UP" in one["flags"], received["bytes"], sent["bytes"], dropped
        )
    return found


def choose_asked(members: Sequence[int], own: Sequence[int], most: int) -> tuple[int, ...]:
    """Return the VMs a node asks: all, or its own and others evenly spread, `most` in all."""
    if len(members) <= most:
        return tuple(members)
    others = [rank for rank in members if rank not in set(own)]
    wanted = max(most - len(own), 1)
    return tuple(sorted({*own, *(others[place * len(others) // wanted] for place in range(wanted))}))

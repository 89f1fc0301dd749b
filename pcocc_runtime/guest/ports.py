"""What a guest says of its InfiniBand ports: the command that asks it, and its answer.

The kernel's files are in Documentation/ABI/stable/sysfs-class-infiniband.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ACTIVE = "ACTIVE"
ASK_PORTS = (
    "sh -c 'for p in /sys/class/infiniband/*/ports/*; do [ -r $p/state ] || continue;"
    " echo port $(cat $p/gids/0) $(cat $p/state) $(cat $p/pkeys/*); done'"
)
_HALF = r"(?:[0-9a-f]{4}:){3}[0-9a-f]{4}"  # of a GID: the prefix of the subnet, or the port's GUID
_PORT = re.compile(rf"port {_HALF}:({_HALF}) \d+: (\w+)((?: 0x[0-9a-f]{{4}})*)", re.ASCII)
_MOST_KEYS = 128  # of a port


class GuestPort(NamedTuple):
    """A port's state, such as ACTIVE, and the keys in its table in their order, with the bit of full members."""

    state: str
    keys: tuple[int, ...]


def parse_ports(text: str) -> dict[str, GuestPort]:
    """Return a guest's ports by their GUIDs, as /sys shows them, from what it answers to ASK_PORTS."""
    found = {}
    for line in text.splitlines():
        one = _PORT.fullmatch(line.strip())
        if one:
            keys = [int(word, 16) for word in one[3].split()[:_MOST_KEYS]]
            found[one[1]] = GuestPort(one[2], tuple(key for key in keys if key))
    return found


def parse_state(text: str) -> str:
    """Return the state of a port from its file, such as `4: ACTIVE`."""
    return text.strip().partition(": ")[2]

"""What root hands over of a VM's network interfaces: each tap open once for each queue, with /dev/vhost-net where that
is had.

The plugin writes it for the launcher (spank/stepd.c): `5/7:6/8,9/10:11/12` for two interfaces of two queues.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Queue(NamedTuple):
    """A queue of a tap, as a descriptor, and its /dev/vhost-net: a descriptor, an errno below zero, or None where
    it is not to be had."""

    tap: int
    vhost: int | None = None


def parse_interfaces(text: str) -> tuple[tuple[Queue, ...], ...]:
    """Return the queues of each interface, eth0 first; ValueError when the text is no such list."""
    return tuple(tuple(map(_parse_queue, one.split(":"))) for one in text.split(",") if one)


def _parse_queue(text: str) -> Queue:
    found = re.fullmatch(r"(\d+)(?:/(-?\d+))?", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is no queue of a tap")
    return Queue(int(found[1]), None if found[2] is None else int(found[2]))

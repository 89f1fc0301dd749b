"""Sends frames from a guest: what tests/netns/forge.py and steal.py share."""

import os
from collections.abc import Callable, Mapping, Sequence

from scapy.config import conf
from scapy.packet import Packet, Padding, Raw


def send_frames(frames: Mapping[str, Callable[[], Packet]], names: Sequence[str], honest: Packet) -> None:
    """Send frames on eth0, each with its name as padding, and then an honest one with the word END."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one CPU: frames arrive in the order in which they are sent
    conf.verb = 0
    wire = conf.L2socket(iface="eth0")
    for name in names:
        wire.send(frames[name]() / Padding(f"<{name}>".encode()))
    wire.send(honest / Raw(b"END"))

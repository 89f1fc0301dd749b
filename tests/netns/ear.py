"""Runs in a guest: print in hex each frame that arrives on eth0, until one carries the word END (standard library only).

Usage: ear.py SECONDS, how long to wait for each frame.
"""

import socket
import struct
import sys

SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4  # linux/if_packet.h


def hear(wire: socket.socket) -> bytes:
    """Return the next frame as it was on the wire: the kernel passes a VLAN tag separately from the frame."""
    frame, extra, _flags, _address = wire.recvmsg(65535, socket.CMSG_SPACE(20))
    for level, kind, data in extra:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _length, _snap, _mac, _net, tci, protocol = struct.unpack("IIIHHHH", data[:20])
            if status & TP_STATUS_VLAN_VALID:
                frame = frame[:12] + struct.pack(">HH", protocol, tci) + frame[12:]
    return frame


with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind(("eth0", 0))
    wire.settimeout(float(sys.argv[1]))
    print("ready", flush=True)
    frame = b""
    while b"END" not in frame:
        frame = hear(wire)
        print(frame.hex(), flush=True)

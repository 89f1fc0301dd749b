"""Runs in a guest: print in hex each frame that arrives on eth0, until one carries the word END (standard library only)."""

import socket
import struct

SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 263, 8, 1 << 4  # linux/if_packet.h; the kernel takes a VLAN tag out of the frame and tells it beside


def whole(frame: bytes, beside: list[tuple[int, int, bytes]]) -> bytes:
    """Return the frame as it was on the wire."""
    for _level, _kind, data in beside:
        status, *_sizes, tag, protocol = struct.unpack("IIIHHHH", data)
        if status & VLAN_VALID:
            return frame[:12] + struct.pack(">HH", protocol, tag) + frame[12:]
    return frame


def main() -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
        wire.bind(("eth0", 0))
        wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        wire.settimeout(20)
        print("ready", flush=True)
        frame = b""
        while b"END" not in frame:
            frame, beside, _flags, _address = wire.recvmsg(65535, 64)
            print(whole(frame, beside).hex(), flush=True)


if __name__ == "__main__":
    main()

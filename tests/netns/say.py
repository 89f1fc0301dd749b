"""Runs in a guest: send frames on eth0. Usage: say.py (DESTINATION HEX TEXT)...; the hex follows the two addresses."""

import socket
import sys
from pathlib import Path

mac = Path("/sys/class/net/eth0/address").read_text()
words = iter(sys.argv[1:])
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind(("eth0", 0))
    for destination, rest, text in zip(words, words, words, strict=True):
        frame = bytes.fromhex(destination.replace(":", "")) + bytes.fromhex(mac.replace(":", "")) + bytes.fromhex(rest)
        wire.send((frame + text.encode()).ljust(60, b"\0"))

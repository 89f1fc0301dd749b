"""Runs in a guest: print in hex each frame that arrives on eth0, until one carries the word END (standard library only)."""

import socket

with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
    wire.bind(("eth0", 0))
    wire.settimeout(20)
    print("ready", flush=True)
    frame = b""
    while b"END" not in frame:
        frame = wire.recv(65535)
        print(frame.hex(), flush=True)

"""Runs anywhere: answer on TCP and UDP ports, of all addresses, with the address and port the caller seems to have.

Usage: whoami.py PORT...; each packet or connection is also printed. Standard library only.
"""

import selectors
import socket
import sys

ready = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        wire = socket.socket(socket.AF_INET6, kind)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        wire.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            wire.listen()
        ready.register(wire, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _events in ready.select():
        wire = key.fileobj
        assert isinstance(wire, socket.socket)
        data, caller = b"", None
        if wire.type == socket.SOCK_STREAM:
            connection, caller = wire.accept()
            with connection:
                connection.sendall(f"{caller[0].removeprefix('::ffff:')} {caller[1]}\n".encode())
        else:
            data, asked, _flags, caller = wire.recvmsg(2048, 64)
            answer = f"{caller[0].removeprefix('::ffff:')} {caller[1]}\n".encode()
            wire.sendmsg([answer], asked, 0, caller)  # from the address that was asked
        print(caller[0], data.hex(), flush=True)

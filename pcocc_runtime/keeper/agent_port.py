"""The virtio port of the guest agent. Only the keeper is connected to it; clients use the keeper's socket
`agent`.

The keeper stays connected as long as the VM lives, because of a guest agent that has an answer left when its
client disconnects: Linux accepts no data for a port that nobody is connected to, and qemu-ga tries again at
once, at 100 % of a CPU (seen with 7.2). One client is served at a time, as QEMU would do. What the guest
sends while there is no client is thrown away, at a limited rate. A client recognizes an answer that was meant
for an earlier one by the number that guest-sync-delimited returns. The keeper stays in memory as long as the
VM: this module imports little.
"""

from __future__ import annotations

import os
import selectors
import socket
import time

DRAIN_AGAIN = 0.5  # seconds between two pieces that are thrown away
_PIECE = 1 << 16  # bytes that are read at once: no more are kept for a side that does not read


class AgentPort:
    """Passes bytes between a guest's agent and one client at a time; `path` is for clients, `port` is QEMU's."""

    def __init__(self, path: str, port: str, selector: selectors.BaseSelector) -> None:
        self.path, self.port_path, self.selector = path, port, selector
        self.port: socket.socket | None = None
        self.client: socket.socket | None = None
        self.waiting: dict[socket.socket, bytes] = {}  # what could not be sent to a side yet
        self.again = 0.0  # monotonic seconds when the port is read again; 0 unless something was thrown away
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            self.listener.bind(path)
            os.chmod(path, 0o600)
            self.listener.listen(4)
            self.listener.setblocking(False)
        except OSError:
            self.listener.close()  # the job's directory is already being released

    def connect(self) -> None:
        """Connect to the port, and accept clients; the port exists as soon as QEMU answers on its monitor."""
        if self.port is not None or self.listener.fileno() < 0:
            return
        port = socket.socket(socket.AF_UNIX)
        port.setblocking(False)
        try:
            port.connect(self.port_path)
        except OSError:
            port.close()  # QEMU is gone, or going
            return
        self.port = port
        self.selector.register(port, selectors.EVENT_READ, self._hear_port)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def is_waiting(self) -> bool:
        """Tell whether `tick` has something to do at a certain time."""
        return self.again > 0

    def tick(self) -> None:
        """Read again what the guest sends to nobody."""
        if self.again and time.monotonic() > self.again:
            self._hear_on()

    def _hear_on(self) -> None:
        self.again = 0.0
        if self.port is not None:
            self._watch()

    def _accept(self) -> None:
        try:
            client, _address = self.listener.accept()
        except OSError:
            return
        client.setblocking(False)
        self.client = client
        self.selector.unregister(self.listener)  # the next one waits
        self.selector.register(client, selectors.EVENT_READ, self._hear_client)
        self._hear_on()

    def _hear_port(self) -> None:
        assert self.port is not None
        self._flush(self.port)
        data = self._read(self.port, self.client)
        if data == b"":
            self._lose_port()
        elif data and self.client is None:
            self.again = time.monotonic() + DRAIN_AGAIN
            self._watch()
        elif data and self.client is not None:
            self._pass_on(self.client, data)

    def _hear_client(self) -> None:
        if self.client is None:
            return  # the port was lost, and the client with it, earlier in the same turn of the selector
        self._flush(self.client)
        data = self._read(self.client, self.port)
        if data == b"":
            self._lose_client()
        elif data and self.port is not None:
            self._pass_on(self.port, data)

    def _read(self, side: socket.socket, other: socket.socket | None) -> bytes | None:
        """Return what a side has sent: b"" if it has closed, None if the other has to read first or it is silent."""
        if other in self.waiting:
            return None
        try:
            return side.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _pass_on(self, side: socket.socket, data: bytes) -> None:
        self.waiting[side] = self.waiting.get(side, b"") + data
        self._flush(side)

    def _flush(self, side: socket.socket) -> None:
        """Send a side what waits for it; that a side has closed is noticed when it is read."""
        data = self.waiting.pop(side, b"")
        try:
            data = data[side.send(data) :] if data else b""
        except BlockingIOError:
            pass
        except OSError:
            data = b""
        if data:
            self.waiting[side] = data
        self._watch()

    def _watch(self) -> None:
        """Register what to wait for: to write what a side lacks, and to read if the other has taken everything."""
        for side, other, handle in (
            (self.port, self.client, self._hear_port), (self.client, self.port, self._hear_client),
        ):  # fmt: skip
            if side is None:
                continue
            events = selectors.EVENT_WRITE if side in self.waiting else 0
            if other not in self.waiting and not (side is self.port and self.again):
                events |= selectors.EVENT_READ
            known = side in self.selector.get_map()
            if known and not events:
                self.selector.unregister(side)
            elif known:
                self.selector.modify(side, events, handle)
            elif events:
                self.selector.register(side, events, handle)

    def _lose_client(self) -> None:
        assert self.client is not None
        self._close(self.client)
        self.client = None
        if self.port is not None:
            self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
            self._watch()

    def _lose_port(self) -> None:
        assert self.port is not None
        self._close(self.port)
        self.port = None
        if self.client is not None:
            self._lose_client()
        else:
            self.selector.unregister(self.listener)
        self.listener.close()

    def _close(self, side: socket.socket) -> None:
        self.waiting.pop(side, None)
        if side in self.selector.get_map():
            self.selector.unregister(side)
        side.close()

"""The talk between a launcher and the service that keeps the layers everybody may read.

One connection is one layer: `{"layer": SHA256}` and the open source go one way; lines `{"state": "waiting" | "copying",
"size": BYTES}`, at least every second, and at last `{"state": "done" | "damaged" | "failed", "message": TEXT}` the other.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import stat
import time
from typing import Any

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError

SOCKET = naming.RUN_DIR / "cache.socket"
_BEAT = 0.5  # seconds between two lines
_SILENCE = 30.0  # seconds after which the other side is given up
_MAX_LINE = 4096


def connect() -> socket.socket | None:
    """Return a connection to this node's service, None when there is none."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(_SILENCE)
    try:
        sock.connect(str(SOCKET))
    except OSError:
        sock.close()
        return None
    return sock


def send_request(sock: socket.socket, layer: str, source: int) -> None:
    """Ask for a layer to be kept, and noted as used."""
    socket.send_fds(sock, [json.dumps({"layer": layer}).encode() + b"\n"], [source])


def receive_states(sock: socket.socket) -> Any:
    """Yield what the service says, up to its last word; NodeError when it falls silent."""
    pending = b""
    while True:
        try:
            data = sock.recv(65536)
        except OSError as error:
            raise NodeError(f"the image cache does not answer: {error.strerror or error}") from None
        if not data:
            raise NodeError("the image cache gave up without a word")
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            yield answer
            if answer["state"] not in ("waiting", "copying"):
                return


def receive_request(sock: socket.socket) -> tuple[str, int]:
    """Return the layer and the open source that a launcher sends; NodeError when it is not that."""
    sock.settimeout(_SILENCE)
    data, fds, _flags, _address = socket.recv_fds(sock, _MAX_LINE, 4)
    try:
        tree = json.loads(data)
        layer = tree["layer"]
        if len(fds) != 1 or not re.fullmatch(r"[0-9a-f]{64}", layer):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NodeError("this is not a request for a layer") from None
    mode = os.fstat(fds[0]).st_mode
    if not stat.S_ISREG(mode) or fcntl.fcntl(fds[0], fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH) != os.O_RDONLY:
        raise NodeError("the layer is not a file that is open for reading")
    if not mode & stat.S_IROTH:
        raise NodeError("not everybody may read this layer")
    return layer, fds[0]


class Teller:
    """Tells a launcher how far its layer is; a launcher that has gone is no reason to stop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._next = 0.0

    def watch(self, state: str, size: int) -> None:
        """Say a state, now and then."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _BEAT
            self.say(state, size=size)

    def say(self, state: str, **fields: Any) -> None:
        """Say one line."""
        try:
            self._sock.sendall(json.dumps({"state": state, **fields}).encode() + b"\n")
        except OSError:
            pass

"""What a launcher and the service that caches layers for all users of a node say to each other.

One connection serves several layers, one after the other. The launcher sends a LayerRequest with the open
source. The service answers with a LayerState at least every second, up to a final one (documents/layer.py).
With the `done` of a private layer comes its open copy, which has no path that the launcher could open.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator

from pcocc_runtime import naming
from pcocc_runtime.documents.layer import (
    LayerRequest,
    LayerState,
    decode_layer_request,
    decode_layer_state,
    encode_layer_request,
    encode_layer_state,
)
from pcocc_runtime.errors import NodeError
from pcocc_runtime.qemu.qmp import Messages

SOCKET = naming.RUN_DIR / "cache.socket"
_BEAT = 0.5  # seconds between two lines
# seconds without a word until the other side is given up; on a starved node the service took 30 to start
_SILENCE = 120.0
_FIRST = 30.0  # the same for a launcher that has connected and asks for nothing
_BETWEEN = 300.0  # the same for a launcher that has a layer, and may copy others before it asks for the next
_MAX_LINE = 4096  # bytes of a request
_LONGEST_STATE = 1 << 16  # bytes of an answer


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


def read_user(sock: socket.socket) -> int:
    """Return the uid at the other end, as the kernel knows it (unix(7), SO_PEERCRED)."""
    _pid, uid, _gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    found: int = uid
    return found


def send_request(sock: socket.socket, layer: str, source: int, private: bool = False) -> None:
    """Ask for a layer to be cached and noted as used; a `private` one is for whoever can open this very source."""
    try:
        socket.send_fds(sock, [encode_layer_request(LayerRequest(layer, private))], [source])
    except OSError as error:
        raise NodeError(f"the image cache does not answer: {error.strerror or error}") from None


def receive_states(sock: socket.socket) -> Iterator[LayerState]:
    """Yield what the service says, up to its final answer; NodeError when it is silent."""
    lines, held = Messages(_LONGEST_STATE), None
    while True:
        try:
            data, fds, _flags, _address = socket.recv_fds(sock, 65536, 1)
        except OSError as error:
            raise NodeError(f"the image cache does not answer: {error.strerror or error}") from None
        if not data:
            raise NodeError("the image cache ended the connection without an answer")
        held = fds[0] if fds else held
        for message in lines.feed(data):
            state = decode_layer_state(message)._replace(fd=held)
            yield state
            if state.is_final:
                return


def receive_request(sock: socket.socket, first: bool = True) -> tuple[str, bool, int] | None:
    """Return the layer a launcher asks for, whether it is private, and its open source; None after the last one."""
    sock.settimeout(_FIRST if first else _BETWEEN)
    data, fds, _flags, _address = socket.recv_fds(sock, _MAX_LINE, 4)
    sock.settimeout(_SILENCE)
    if not data:
        return None
    request = decode_layer_request(data)
    if len(fds) != 1:
        raise NodeError("this is not a request for a layer")
    mode = os.fstat(fds[0]).st_mode
    if (
        not stat.S_ISREG(mode)
        or fcntl.fcntl(fds[0], fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH) != os.O_RDONLY
    ):
        raise NodeError("the layer is not a file that is open for reading")
    if not request.private and not mode & stat.S_IROTH:
        raise NodeError("not everybody may read this layer")
    return *request, fds[0]


class Teller:
    """Tells a launcher how far its layer is; when the launcher is gone, the copy goes on."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._next = 0.0

    def watch(self, state: str, size: int) -> None:
        """Tell a state, at most twice a second."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _BEAT
            self.say(LayerState(state, size))

    def say(self, state: LayerState) -> None:
        """Send one line, and a descriptor with it."""
        fds = () if state.fd is None else (state.fd,)
        try:
            socket.send_fds(self._sock, [encode_layer_state(state)], fds)
        except OSError:
            pass

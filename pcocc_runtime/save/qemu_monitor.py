"""A connection to the monitor of a VM's QEMU that gives it files (docs/interop/qmp-spec)."""

from __future__ import annotations

import socket
import time
from typing import Any

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.qemu.qmp import Messages, Unreadable, render_command

_SECONDS = 60.0  # QEMU may have much to flush


class QemuMonitor:
    """The connection; RequestError when another operation has the monitor, NodeError when the VM has ended."""

    def __init__(self, path: str, vm: str) -> None:
        self.vm = vm
        self._messages, self._heard = Messages(), list[Any]()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        try:
            self._socket.connect(path)
            if "QMP" not in self._next():
                raise NodeError(f"the QEMU of {vm} greets by no word of its")
            self.command("qmp_capabilities")
        except TimeoutError:
            self._socket.close()
            raise RequestError(f"another operation on {vm} has its monitor", "try again when it is done") from None
        except OSError:
            self._socket.close()
            raise NodeError(f"{vm} has ended") from None
        except NodeError:
            self._socket.close()
            raise

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """Return what QEMU answers; NodeError with its words when it refuses."""
        self._socket.sendall(render_command(name, arguments, "own"))
        return self._answer()

    def send_file(self, name: str, fd: int) -> None:
        """Give QEMU a descriptor, under a name (getfd)."""
        socket.send_fds(self._socket, [render_command("getfd", {"fdname": name}, "own")], [fd])
        self._answer()

    def end(self) -> None:
        """End QEMU, and wait until it has gone."""
        try:
            self._socket.sendall(render_command("quit"))
            while True:
                self._next()
        except OSError:
            pass

    def _answer(self) -> Any:
        deadline = time.monotonic() + _SECONDS
        while True:
            if time.monotonic() > deadline:
                raise NodeError(f"the QEMU of {self.vm} does not answer")
            message = self._next()
            if message.get("id") != "own":
                continue  # an event
            if "error" in message:
                raise NodeError(f"the QEMU of {self.vm} refuses: {message['error'].get('desc')}")
            return message.get("return")

    def _next(self) -> dict[str, Any]:
        while not self._heard:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            self._heard += [one for one in self._messages.feed(data) if not isinstance(one, Unreadable)]
        found: dict[str, Any] = self._heard.pop(0)
        return found

    def __enter__(self) -> QemuMonitor:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

"""QEMU's monitor: commands, their answers, and the events between them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pcocc_runtime.qemu.qmp import Messages, Unreadable, render_command

from .place import MachineError

Message = dict[str, Any]


class Monitor:
    """A connection to the monitor; MachineError when QEMU refuses, or says nothing for `patience` seconds."""

    def __init__(self, path: Path, patience: float = 300) -> None:
        self._sock, self._messages = socket.socket(socket.AF_UNIX), Messages()
        self._sock.settimeout(patience)
        self._waiting: list[Message] = []
        self.events: list[Message] = []
        try:
            self._sock.connect(str(path))
            self._next()  # its greeting
        except OSError as error:
            self._sock.close()
            raise MachineError(f"the machine's QEMU does not answer: {error}") from None
        self.ask("qmp_capabilities")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self._sock.close()

    def ask(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Return what a command returns."""
        self._sock.sendall(render_command(name, arguments))
        while "event" in (message := self._next()):
            self.events.append(message)
        if "error" in message:
            raise MachineError(f"QEMU refuses {name}: {message['error']['desc']}")
        return message["return"]

    def wait(self, event: str, **data: object) -> Message:
        """Return the first event with this name and these data that has not been returned yet."""
        while True:
            while self.events:
                message = self.events.pop(0)
                if message["event"] == event and data.items() <= message.get("data", {}).items():
                    return message
            self.events.append(self._next())

    def _next(self) -> Message:
        while not self._waiting:
            try:
                data = self._sock.recv(65536)
            except TimeoutError:
                raise MachineError("the machine's QEMU does not answer any more") from None
            except ConnectionResetError:
                data = b""
            if not data:
                raise MachineError("the machine's QEMU has ended")
            for message in self._messages.feed(data):
                if isinstance(message, Unreadable):
                    raise MachineError(f"the machine's QEMU says {message}")
                self._waiting.append(message)
        return self._waiting.pop(0)

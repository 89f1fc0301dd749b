"""The guest's QEMU agent: freezes and thaws its file systems (QEMU: docs/interop/qemu-ga-ref)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from pcocc_runtime.errors import NodeError
from pcocc_runtime.qemu.qmp import RESET, Lines, parse_message, render_command

AGENT_SECONDS = 5.0  # an agent that runs answers at once, but later in an emulated guest
FREEZE_SECONDS = 30.0  # data that are not yet written have to reach the disk first


class Agent:
    """A connection to a guest's agent; QEMU lets in one at a time. NodeError: it does not answer, or refuses."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._lines = Lines()
        self._heard: list[bytes | None] = []
        try:
            self._socket.settimeout(AGENT_SECONDS)
            self._socket.connect(path)
            self._synchronise()
        except OSError as error:
            self.close()
            raise _silent(error) from None
        except NodeError:
            self.close()
            raise

    def freeze(self) -> int:
        """Freeze the guest's file systems; return how many there are."""
        return self._ask("guest-fsfreeze-freeze", FREEZE_SECONDS)

    def thaw(self) -> int:
        """Thaw them; return how many were frozen. It works even if the command before has failed or timed out."""
        self._synchronise()
        return self._ask("guest-fsfreeze-thaw", FREEZE_SECONDS)

    def _synchronise(self) -> None:
        """Find the place in the stream where the answers to us begin."""
        number = int.from_bytes(os.urandom(4), "big")
        deadline = time.monotonic() + AGENT_SECONDS
        self._send(RESET + render_command("guest-sync-delimited", {"id": number}))
        while True:
            answer = parse_message(self._line(deadline).rpartition(RESET)[2])
            if isinstance(answer, dict) and answer.get("return") == number:
                return
            if time.monotonic() > deadline:
                raise _silent("it answers something else")

    def command(
        self, name: str, arguments: Mapping[str, Any] | None = None, seconds: float = FREEZE_SECONDS
    ) -> Any:
        """Return the agent's answer to a command; NodeError with its words when it refuses."""
        self._send(render_command(name, arguments))
        answer: Any = parse_message(self._line(time.monotonic() + seconds))
        if isinstance(answer, dict) and "return" in answer:
            return answer["return"]
        reason = (
            answer["error"].get("desc")
            if isinstance(answer, dict) and isinstance(answer.get("error"), dict)
            else answer
        )
        raise NodeError(f"the guest's agent refuses: {str(reason)[:200]}")

    def _ask(self, command: str, seconds: float) -> int:
        found = self.command(command, None, seconds)
        if not isinstance(found, int):
            raise NodeError(f"the guest's agent refuses: {str({'return': found})[:200]}")
        return found

    def _send(self, line: bytes) -> None:
        try:
            self._socket.sendall(line)
        except OSError as error:
            raise _silent(error) from None

    def _line(self, deadline: float) -> bytes:
        while not self._heard:
            try:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._socket.recv(4096)
            except OSError as error:
                raise _silent(error) from None
            if not data:
                raise _silent("it closed the connection")
            self._heard += self._lines.feed(data)
            if not self._heard and time.monotonic() > deadline:
                raise _silent("it sent a line without an end")
        line = self._heard.pop(0)
        if line is None:
            raise _silent(f"it sent a line of more than {self._lines.longest} bytes")
        return line

    def close(self) -> None:
        """Let others in."""
        self._socket.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def _silent(why: object) -> NodeError:
    return NodeError(f"the guest's agent does not answer: {why}")

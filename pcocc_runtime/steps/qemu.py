"""A connection to the monitor of a QEMU on this node, which lets in one at a time (docs/interop/qmp-spec)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from pcocc_runtime import naming
from pcocc_runtime.documents.members import MEMBERS_FILE
from pcocc_runtime.documents.vm_state import STATE_FILE, decode_state, explain_end
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.qemu.qmp import Messages, Unreadable

_TURN_SECONDS = 15.0  # another operation may be about to end
ANSWER_SECONDS = 60.0


def vm_directory(job: int, vm: str) -> str:
    """Return the directory of a VM that runs on this node; NodeError, with the reason if known, when not."""
    directory = f"{naming.job_dir(job)}/{vm}"
    if (reason := find_end(directory)) is not None:
        raise NodeError(f"{vm} has ended: {reason}", "'pcocc ps -l' lists the VMs that run")
    if not os.path.isdir(directory):
        raise NodeError(f"{vm} does not run on this node", "'pcocc ps -l' lists the VMs and their nodes")
    return directory


def find_end(directory: str) -> str | None:
    """Return why the VM of a directory has ended, None when nothing says that it has."""
    try:
        with open(f"{directory}/{STATE_FILE}") as stream:
            found = decode_state(stream.read())
    except (OSError, ValueError):
        return None
    return explain_end(found.reason) if found.state == "ended" else None


def note_boot(job: int) -> None:
    """Make steps as patient with VMs as at their first boot: they go by the age of this file."""
    with contextlib.suppress(OSError):
        os.utime(f"{naming.job_dir(job)}/{MEMBERS_FILE}")


class QemuGone(NodeError):
    """QEMU has closed the connection: the VM has ended."""


class Monitor:
    """The connection; NodeError when there can be none, QemuGone when the VM ends meanwhile."""

    def __init__(self, job: int, vm: str) -> None:
        self.vm, self.directory = vm, vm_directory(job, vm)
        self._messages, self._heard = Messages(), list[Any]()
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._meet()
        except BaseException:  # whatever it is, it is raised again
            self._socket.close()
            raise

    def _meet(self) -> None:
        try:
            self._socket.settimeout(_TURN_SECONDS)
            self._socket.connect(f"{self.directory}/qmp")
            self.next(_TURN_SECONDS)
        except TimeoutError:
            raise RequestError(
                f"another operation on {self.vm} is using its monitor", "try again when it is done"
            ) from None
        except FileNotFoundError:
            raise NodeError(
                f"the QEMU of {self.vm} has not started yet, or has just ended", "'pcocc ps -l' says which"
            ) from None
        except OSError:
            raise self._gone() from None
        self.command("qmp_capabilities")

    def command(
        self, name: str, arguments: dict[str, Any] | None = None, seconds: float = ANSWER_SECONDS
    ) -> Any:
        """Return what QEMU answers; NodeError with its words when it refuses."""
        return self.say({"execute": name, **({"arguments": arguments} if arguments else {})}, seconds)

    def say(self, words: dict[str, Any], seconds: float = ANSWER_SECONDS, fd: int | None = None) -> Any:
        """Send QEMU a whole message of QMP, with an open file if it is about one; return its answer.

        NodeError with QEMU's words when it refuses.
        """
        from json import dumps

        self._send(dumps({**words, "id": "op"}).encode() + b"\n", () if fd is None else (fd,))
        deadline = time.monotonic() + seconds
        while True:
            message = self._await(deadline)
            if message.get("id", "op" if "error" in message else "") != "op":
                continue  # an event; an error without an id is about a line that QEMU could not read
            if "error" in message:
                raise NodeError(f"the QEMU of {self.vm} refuses: {message['error'].get('desc')}")
            return message.get("return")

    def send_file(self, name: str, fd: int) -> None:
        """Give QEMU a descriptor, under a name (QMP's getfd)."""
        self.say({"execute": "getfd", "arguments": {"fdname": name}}, fd=fd)

    def next(self, seconds: float) -> dict[str, Any]:
        """Return QEMU's next message; TimeoutError when there is none, QemuGone when it has ended."""
        deadline = time.monotonic() + seconds
        while not self._heard:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise self._gone()
            self._heard += [one for one in self._messages.feed(data) if not isinstance(one, Unreadable)]
        found: dict[str, Any] = self._heard.pop(0)
        return found

    def _await(self, deadline: float) -> dict[str, Any]:
        try:
            return self.next(max(deadline - time.monotonic(), 0.001))
        except TimeoutError:
            raise NodeError(f"the QEMU of {self.vm} does not answer") from None

    def _send(self, line: bytes, files: Sequence[int]) -> None:
        try:
            if files:
                line = line[socket.send_fds(self._socket, [line], files) :]
            self._socket.sendall(line)
        except OSError:
            raise self._gone() from None

    def _gone(self) -> QemuGone:
        reason = find_end(self.directory)
        return QemuGone(f"{self.vm} has ended" + (f": {reason}" if reason else ""))

    def close(self) -> None:
        """Let others in."""
        self._socket.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

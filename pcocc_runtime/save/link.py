"""A saver's connection to the keeper of a VM: commands for its QEMU, as long as it stands; its end puts everything back."""

from __future__ import annotations

import json
import socket
import time
from types import TracebackType
from typing import Any

from pcocc_runtime.errors import NodeError, RequestError

TURN_SECONDS = 5.0  # another save may be about to end
REPLY_SECONDS = 60.0  # a disk may have much to flush before it can be put under another


class SaverConnection:
    """The connection; NodeError when the VM has ended, RequestError when another save has it."""

    def __init__(self, path: str, vm: str) -> None:
        self.vm = vm
        self._heard = b""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(TURN_SECONDS)
            self._socket.connect(path)
            self._line(TURN_SECONDS)
        except TimeoutError:
            self._socket.close()
            raise RequestError(f"another save of {vm} is under way, or about to end", "try again when it has ended") from None
        except FileNotFoundError:
            self._socket.close()
            raise NodeError(f"{vm} is not up yet", "try again in a moment") from None
        except OSError:
            self._socket.close()
            raise self._ended() from None

    def command(self, name: str, /, **arguments: Any) -> Any:
        """Return what QEMU answers; NodeError when it refuses."""
        answer = self._talk({"execute": name, "arguments": arguments})
        if "error" in answer:
            raise NodeError(f"{self.vm}'s QEMU refuses {name}: {answer['error'].get('desc')}")
        return answer.get("return")

    def tell_frozen(self, frozen: bool) -> None:
        """Have the guest's file systems thawed if this process ends before it says that they are."""
        self._send({"frozen": frozen})

    def tell_layer(self, path: str) -> None:
        """Have a file removed if this process does not do so."""
        self._send({"layer": path})

    def tell_drive(self, device: str, node: str) -> None:
        """Have a device of QEMU's use this block node alone when this process has ended."""
        self._send({"drive": [device, node]})

    def finish(self, seconds: float) -> str | None:
        """Have everything put back; return why that has not come to an end, None when it has, or when the VM has ended."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            answer = self._line(seconds)
        except TimeoutError:
            return f"not done after {seconds:.0f} s"
        except OSError:
            return None
        return None if answer.get("merged") else str(answer.get("error"))

    def _talk(self, words: dict[str, Any]) -> dict[str, Any]:
        self._send(words)
        try:
            return self._line(REPLY_SECONDS)
        except TimeoutError:
            raise NodeError(f"{self.vm}'s QEMU did not answer within {REPLY_SECONDS:.0f} s") from None
        except OSError:
            raise self._ended() from None

    def _send(self, words: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(words).encode() + b"\n")
        except OSError:
            raise self._ended() from None

    def _line(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._heard:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        words: dict[str, Any] = json.loads(line)
        return words

    def _ended(self) -> NodeError:
        return NodeError(f"{self.vm} has ended", "what its image's revisions were before, they are")

    def __enter__(self) -> SaverConnection:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._socket.close()

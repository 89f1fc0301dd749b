"""A saver's connection to a VM's keeper, which passes commands to QEMU; its end puts everything back."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pcocc_runtime.documents.save import (
    DeviceNode,
    Frozen,
    Outcome,
    QemuCommand,
    Reply,
    ScratchFile,
    decode_answer,
    encode_request,
)
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.qemu.qmp import Messages

if TYPE_CHECKING:
    from pcocc_runtime.documents.save import KeeperAnswer, SaverRequest
    from pcocc_runtime.qemu.qmp import Message, Unreadable

_TURN_SECONDS = 5.0  # another save may be about to end
REPLY_SECONDS = 60.0  # a disk may have much to flush before another layer can be put upon it


class SaverConnection:
    """The connection; NodeError when the VM has ended, RequestError when another save has it."""

    def __init__(self, path: str, vm: str) -> None:
        self.vm = vm
        self._messages = Messages()
        self._heard: list[Message | Unreadable] = []
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(_TURN_SECONDS)
            self._socket.connect(path)
            self._next(_TURN_SECONDS)
        except TimeoutError:
            self._socket.close()
            raise RequestError(f"another save of {vm} is in progress", "try again when it is done") from None
        except FileNotFoundError:
            self._socket.close()
            raise NodeError(f"{vm} is not up yet", "try again in a moment") from None
        except OSError:
            self._socket.close()
            raise self._ended() from None
        except NodeError:
            self._socket.close()
            raise

    def command(self, name: str, /, **arguments: Any) -> Any:
        """Return what QEMU answers; NodeError when it refuses."""
        answer = self._talk(QemuCommand(name, arguments))
        if answer.error is not None:
            raise NodeError(f"the QEMU of {self.vm} refuses {name}: {answer.error}")
        return answer.message.get("return")

    def tell_frozen(self, frozen: bool) -> None:
        """Have the guest's file systems thawed should this process end before it says that they are."""
        self._send(Frozen(frozen))

    def tell_layer(self, path: str) -> None:
        """Have a file removed if this process does not do so."""
        self._send(ScratchFile(path))

    def tell_drive(self, device: str, node: str) -> None:
        """Have a device of QEMU's use this block node again, without a filter, when this process has ended."""
        self._send(DeviceNode(device, node))

    def finish(self, seconds: float) -> str | None:
        """Have everything undone; return why that could not be done, None when it is done or the VM has ended."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            answer = self._next(seconds)
        except TimeoutError:
            return f"not done after {seconds:.0f} s"
        except OSError:
            return None
        return answer.error if isinstance(answer, Outcome) else f"its keeper answers {answer}"

    def _talk(self, command: QemuCommand) -> Reply:
        self._send(command)
        try:
            answer = self._next(REPLY_SECONDS)
        except TimeoutError:
            raise NodeError(f"{self.vm}'s QEMU did not answer within {REPLY_SECONDS:.0f} s") from None
        except OSError:
            raise self._ended() from None
        if not isinstance(answer, Reply):
            raise NodeError(f"the keeper of {self.vm} answered {command.execute} by {answer}")
        return answer

    def _send(self, request: SaverRequest) -> None:
        try:
            self._socket.sendall(encode_request(request))
        except OSError:
            raise self._ended() from None

    def _next(self, seconds: float) -> KeeperAnswer:
        """Return the keeper's next message; TimeoutError, OSError when it has ended, NodeError for an unknown one."""
        deadline = time.monotonic() + seconds
        while not self._heard:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            self._heard += self._messages.feed(data)
        try:
            return decode_answer(self._heard.pop(0))
        except ValueError as error:
            raise NodeError(f"the answer of {self.vm}'s keeper cannot be read: {error}") from None

    def _ended(self) -> NodeError:
        # with the VM, mostly, of which its operation says more then (steps/fate.py)
        return NodeError(f"the keeper of {self.vm} has ended", "nothing was saved; what was saved before is unchanged")

    def __enter__(self) -> SaverConnection:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._socket.close()

"""The keeper's part in a checkpoint: a VM stands still while somebody is connected to a socket, and no longer.

Whoever stores a VM (steps/checkpoint.py) connects to the socket `pause` in the VM's directory. The keeper stops the
guest's CPUs and says `paused`, or why it cannot. However the other process ends, the kernel closes the connection, and
then the VM goes on. A stored VM that shall end is told so by its monitor before. A VM whose job is ending stands still
until then: whoever has stored it says STAYS, and then the VM ends when the connection does, unless GOES_ON was said
before. Resident: imports little.
"""

from __future__ import annotations

import os
import selectors
import socket
import time

from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.documents.save import GOES_ON, PAUSE_SOCKET, STAYS, Pause, encode_pause

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from pcocc_runtime.keeper.transaction import Send
    from pcocc_runtime.qemu.qmp import Message

PAUSE_AGAIN = 0.2  # seconds after which a QEMU that was still storing is told again to go on


class PauseGuard:
    """Makes the VM stand still for one connection at a time.

    idle      nobody is connected
    looking   QEMU was asked whether its guest runs
    pausing   QEMU was told to stop the guest
    paused    the guest is stopped, and the other side has been told
    resuming  the connection has ended; QEMU is told to go on, again and again until it does
    """

    def __init__(
        self, directory: str, selector: selectors.BaseSelector, send: Send, then: Callable[[], None]
    ) -> None:
        self.selector, self.send, self.then = selector, send, then  # `then` is called when the VM goes on
        self.step: Literal["idle", "looking", "pausing", "paused", "resuming"] = "idle"
        self.again = 0.0
        self.stays = False
        self.holder: socket.socket | None = None
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            self.listener.bind(os.path.join(directory, PAUSE_SOCKET))
            self.listener.listen(4)
            self.listener.setblocking(False)
            selector.register(self.listener, selectors.EVENT_READ, self._accept)
        except OSError:
            self.listener.close()  # the job's directory is already being released

    def is_waiting(self) -> bool:
        """Tell whether `tick` has something to do at a certain time."""
        return self.step == "resuming"

    def is_held(self) -> bool:
        """Tell whether somebody has the VM stand still, or it is about to go on."""
        return self.step != "idle"

    def tick(self) -> None:
        """Tell QEMU to let the VM go on, when it is time to tell it again."""
        if self.step == "resuming" and time.monotonic() > self.again:
            self.again = time.monotonic() + PAUSE_AGAIN
            self.send("migrate_cancel", None, "pause-cancel")
            self.send("cont", None, "pause-cont")
            self.send("query-status", None, "pause-status")

    def take(self, message: Message) -> None:
        """Take a message of QEMU's; one that is about something else changes nothing."""
        identity, answer = message.get("id"), message.get("return")
        if identity == "pause-look" and self.step == "looking":
            self._look(answer if isinstance(answer, dict) else {})
        elif identity == "pause-stop" and self.step == "pausing":
            self.step = "paused"
            self._tell(Pause(None))
        elif identity == "pause-status" and self.step == "resuming" and _runs(answer):
            self.step = "idle"
            self.then()

    def _look(self, status: Message) -> None:
        if _runs(status):
            self.step = "pausing"
            self.send("stop", None, "pause-stop")
            return
        self._tell(Pause(str(status.get("status", "unknown"))))
        self._let_go("idle")

    def _accept(self) -> None:
        try:
            holder, _address = self.listener.accept()
        except OSError:
            return
        if self.step != "idle":
            holder.close()  # another checkpoint is being made
            return
        self.holder, self.step, self.stays = holder, "looking", False
        holder.setblocking(False)
        self.selector.register(holder, selectors.EVENT_READ, self._hear)
        self.send("query-status", None, "pause-look")

    def _hear(self) -> None:
        if self.holder is None:
            return
        try:
            if said := self.holder.recv(4096):
                self.stays = STAYS in said and GOES_ON not in said
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        if self.stays:
            self.send("quit", None, None)
        self._let_go("idle" if self.step == "looking" or self.stays else "resuming")
        self.tick()

    def _let_go(self, step: Literal["idle", "resuming"]) -> None:
        self.step, self.again = step, 0.0
        if self.holder is not None:
            self.selector.unregister(self.holder)
            self.holder.close()
            self.holder = None

    def _tell(self, pause: Pause) -> None:
        try:
            assert self.holder is not None
            self.holder.send(encode_pause(pause))
        except OSError:
            pass  # the other side is gone, and the end of the connection will be read


def _runs(status: object) -> bool:
    return isinstance(status, dict) and bool(status.get("running"))

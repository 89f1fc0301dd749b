"""One save of a VM as its keeper sees it: what the saver has changed, and how that is undone."""

from __future__ import annotations

import os
import selectors
import socket
import time

from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.documents.save import (
    LONGEST_REQUEST,
    MERGE_AGAIN,
    MERGE_JOB,
    NOT_A_COMMAND,
    SAVE_FILTER,
    SAVE_OVERLAY,
    SAVE_VIEW,
    DeviceNode,
    Frozen,
    Go,
    Outcome,
    QemuCommand,
    Reply,
    ScratchFile,
    decode_request,
    encode_answer,
)
from pcocc_runtime.qemu.qmp import Messages, TooLong

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from pcocc_runtime.documents.save import KeeperAnswer, SaverRequest
    from pcocc_runtime.qemu.qmp import Message, Unreadable

    # a command of QEMU's, its arguments, what its answer is marked with
    Send = Callable[[str, Message | None, str | None], None]
    Then = Callable[[], None]


class Transaction:
    """A save from its saver's first word until all is as before; then it calls `over`.

    open      the saver is there: it copies, and its commands are passed on to QEMU
    frozen    the same, and the guest's file systems are, or are being, frozen
    looking   the saver has gone; the view of its drive is removed, and QEMU is asked what the device has now
    merging   the saver has gone; the second layer is merged into the one below
    removing  the second layer, or the file of old blocks, is removed from QEMU
    waiting   QEMU could not undo it: tried again at `again`
    over      all is as before
    """

    def __init__(
        self, saver: socket.socket, selector: selectors.BaseSelector, send: Send, thaw: Then, over: Then,
        is_held: Callable[[], bool]
    ) -> None:
        self.saver, self.selector, self.send, self.thaw, self.over = saver, selector, send, thaw, over
        self.step: Literal["open", "frozen", "looking", "merging", "removing", "waiting", "over"] = "open"
        self.again = 0.0
        self.is_held = is_held  # a VM that was stored and stands still has given up its disks: they cannot be changed
        self.layer = ""  # a file to be removed
        # QEMU's name of the disk that has a second layer, or the drive whose old state is shown
        self.changed: str | DeviceNode | None = None
        self.messages = Messages(LONGEST_REQUEST)
        saver.setblocking(False)
        selector.register(saver, selectors.EVENT_READ, self._hear)
        self._tell(Go())

    def tick(self) -> None:
        """Try again what could not be done, when it is time; called at least once a second while `waiting`."""
        if self.step == "waiting" and time.monotonic() > self.again and not self.is_held():
            self._put_back()

    def take(self, message: Message) -> None:
        """Take a message of QEMU's; one about something else changes nothing."""
        identity, data = message.get("id"), message.get("data", {})
        if identity == "save":
            self._tell(Reply(message))
        elif self.step == "looking" and identity == "save-look":
            self._give_back(message.get("return", []))
        elif self.step == "removing" and identity == "save-remove":
            self._removed(message.get("error", {}).get("desc", ""))
        elif self.step == "merging" and identity == "save-merge" and "error" in message:
            self._remove()  # QEMU had refused the second layer: there is nothing to merge
        elif self.step == "merging" and data.get("device") == MERGE_JOB:
            self._follow_merge(message.get("event"), data)

    def _hear(self) -> None:
        try:
            data = self.saver.recv(LONGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        messages = self.messages.feed(data)
        for message in messages:
            if not isinstance(message, TooLong):
                self._read(message)
        if not data or any(isinstance(message, TooLong) for message in messages):
            self.selector.unregister(self.saver)
            self._undo()

    def _read(self, message: Message | Unreadable) -> None:
        try:
            self._obey(decode_request(message))
        except ValueError:
            self._tell(NOT_A_COMMAND)

    def _obey(self, request: SaverRequest) -> None:
        match request:
            case Frozen():
                self.step = "frozen" if request.frozen else "open"
            case ScratchFile():
                self.layer = request.layer
            case DeviceNode():
                self.changed = request
            case QemuCommand():
                if request.execute == "blockdev-snapshot":
                    self.changed = _node_of(request)
                self.send(request.execute, request.arguments, "save")

    def _undo(self) -> None:
        if self.step == "frozen":
            self.thaw()
        if self.layer:
            try:
                # mostly the saver has done this: QEMU needs no name for a file that it has open
                os.unlink(self.layer)
            except OSError:
                pass
        if self.is_held():
            self.step = "waiting"
            return
        self._put_back()

    def _put_back(self) -> None:
        match self.changed:
            case None:
                self._remove()
            case DeviceNode():
                self._look()
            case base:
                self._merge(base)

    def _look(self) -> None:
        """Remove what reads a drive's old state; QEMU takes commands in order, and refuses those done already."""
        self.step = "looking"
        self.send("nbd-server-stop", None, "save-detach")
        self.send("blockdev-del", {"node-name": SAVE_VIEW}, "save-detach")
        self.send("query-block", None, "save-look")

    def _give_back(self, devices: list[Message]) -> None:
        """Give the drive back to its device, without the filter; not if it has it: QEMU 7.2 would abort then."""
        assert isinstance(self.changed, DeviceNode)
        if any(one.get("inserted", {}).get("node-name") == SAVE_FILTER for one in devices):
            own = {"path": self.changed.device, "property": "drive", "value": self.changed.node}
            self.send("qom-set", own, "save-detach")
        self.send("blockdev-del", {"node-name": SAVE_FILTER}, "save-detach")
        self._remove()

    def _merge(self, base: str) -> None:
        """Merge the second layer into the first, named as the base: otherwise QEMU would write to the image itself."""
        self.step = "merging"
        self.send(
            "block-commit", {"job-id": MERGE_JOB, "device": SAVE_OVERLAY, "base-node": base}, "save-merge"
        )

    def _follow_merge(self, event: str | None, data: Message) -> None:
        if event == "BLOCK_JOB_READY":
            self.send("job-complete", {"id": MERGE_JOB}, "save-complete")
        elif event == "BLOCK_JOB_CANCELLED":
            self._postpone(data.get("error", "it was cancelled"))
        elif event == "BLOCK_JOB_COMPLETED":
            if "error" in data:
                self._postpone(data["error"])
            else:
                self._remove()

    def _remove(self) -> None:
        self.step = "removing"
        self.send("blockdev-del", {"node-name": SAVE_OVERLAY}, "save-remove")

    def _removed(self, error: str) -> None:
        if self.changed is not None and "in use" in error:
            self._postpone(error)
        else:  # gone, or never made
            self.step = "over"
            self._leave(None)
            self.over()

    def _postpone(self, error: str) -> None:
        self.step = "waiting"
        self.again = time.monotonic() + MERGE_AGAIN
        self._leave(error)

    def _leave(self, error: str | None) -> None:
        """Tell the saver the outcome, once, in case it waits for it."""
        self._tell(Outcome(error))
        self.saver.close()

    def _tell(self, answer: KeeperAnswer) -> None:
        try:
            self.saver.send(encode_answer(answer))
        except OSError:
            pass  # it is gone, and its end will be read; or it was told the outcome before


def _node_of(snapshot: QemuCommand) -> str:
    if "node" not in snapshot.arguments:
        raise ValueError("it names no node")
    return str(snapshot.arguments["node"])

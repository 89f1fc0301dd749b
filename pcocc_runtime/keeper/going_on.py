"""Has a QEMU read the memory of a checkpoint (-incoming defer), and lets its guest go on when everything is read."""

from __future__ import annotations

from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.qemu.memory_file import is_mapped_source, plan_capabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    from pcocc_runtime.keeper.transaction import Send
    from pcocc_runtime.qemu.qmp import Message


class GoingOn:
    """One such VM. QEMU leaves its guest stopped, as it was stored, and ends if it cannot read the memory."""

    def __init__(self, source: str, send: Send, then: Callable[[], None]) -> None:
        self.source, self.send, self.then = source, send, then
        self.reads = False  # while it is False, a migration means that a checkpoint is being made

    def begin(self) -> None:
        """Have QEMU read the memory from an open file, which it has inherited."""
        self.reads = True
        self.send("migrate-set-capabilities", plan_capabilities(is_mapped_source(self.source)), None)
        self.send("migrate-incoming", {"uri": self.source}, "going-on-begin")

    def take(self, message: Message) -> None:
        """Take a message of QEMU's; one that is about something else changes nothing."""
        if message.get("id") == "going-on-begin" and "error" in message:
            self.send("quit", None, None)
        elif self.reads and message.get("event") == "MIGRATION" and message["data"].get("status") == "completed":
            self.reads = False
            self.send("cont", None, "going-on-cont")
        elif message.get("id") == "going-on-cont":
            self.then()

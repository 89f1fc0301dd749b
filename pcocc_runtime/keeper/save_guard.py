"""The keeper's part in a save: lets savers in, one at a time, and has everything put back when one is gone.

A saver (system/saver_connection.py) connects to the socket `save` in the VM's directory and stays while it needs
the VM as it is. However it ends, the kernel closes the connection, and what it left is undone
(keeper/transaction.py): file systems are thawed, the layer that took the guest's writes is merged into the
disk below it, or the file that kept a drive's old blocks is removed. See docs/decisions/012-save.md.
The keeper is resident, so this imports little.

Their messages are in documents/save.py. The keeper sends Go when the saver may begin; the saver sends QemuCommands
for QEMU, each answered by a Reply, and also Frozen, ScratchFile and DeviceNode; the keeper sends an Outcome after the
saver has closed its side.
"""

from __future__ import annotations

import os
import selectors
import socket

from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.documents.save import SAVE_SOCKET
from pcocc_runtime.keeper.agent_call import AgentCall
from pcocc_runtime.keeper.transaction import Transaction
from pcocc_runtime.qemu.qmp import render_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from pcocc_runtime.keeper.transaction import Send
    from pcocc_runtime.qemu.qmp import Message


class SaveGuard:
    """One save at a time of one VM; `send` writes a command to QEMU."""

    def __init__(
        self, directory: str, agent: str, selector: selectors.BaseSelector, send: Send,
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        self.selector, self.send, self.is_held = selector, send, is_held
        self.thaw = AgentCall(agent, selector, lambda: render_command("guest-fsfreeze-thaw"))
        self.current: Transaction | None = None  # None: no save is under way
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            self.listener.bind(os.path.join(directory, SAVE_SOCKET))
            self.listener.listen(8)
            self.listener.setblocking(False)
            self._await_saver()
        except OSError:
            self.listener.close()  # the job's directory is already being released

    def tick(self) -> None:
        """Do what is due; called at least once a second while `is_waiting`."""
        if self.current:
            self.current.tick()
        self.thaw.tick()

    def is_waiting(self) -> bool:
        """Tell whether something must be done at a certain time, by `tick`."""
        return self.thaw.step == "waiting" or (self.current is not None and self.current.step == "waiting")

    def take(self, message: Message) -> None:
        """Take a message of QEMU's; those that are not about a save change nothing."""
        if self.current:
            self.current.take(message)

    def _await_saver(self) -> None:
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            saver, _address = self.listener.accept()
        except OSError:
            return
        self.selector.unregister(self.listener)  # others wait until this one is over
        self.current = Transaction(saver, self.selector, self.send, self.thaw.ask, self._over, self.is_held)

    def _over(self) -> None:
        self.current = None
        self._await_saver()

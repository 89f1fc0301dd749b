"""Thaws a guest's file systems that a saver has left frozen: the agent is asked until it has answered."""

from __future__ import annotations

import selectors
import socket
import time

from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.qemu.qmp import RESET, Lines, render_command

if TYPE_CHECKING:
    from typing import Literal

THAW_AGAIN = 1.0  # seconds until a guest whose agent was not reached is asked to thaw anew
# RESET ends what the saver may have left half said; the answer to the first command tells which one is the
# second's
_QUESTION = RESET + render_command("guest-sync-delimited", {"id": 1}) + render_command("guest-fsfreeze-thaw")


class Thaw:
    """Asks one guest.

    idle     it has nothing to thaw asking   it was asked, and has not begun to answer hearing  it has
    answered the first command: its next line is about the thaw waiting  it could not be asked, or has hung
    up: asked again in a while
    """

    def __init__(self, path: str, selector: selectors.BaseSelector) -> None:
        self.path, self.selector = path, selector
        self.step: Literal["idle", "asking", "hearing", "waiting"] = "idle"
        self.again = 0.0
        self.lines = Lines()
        self.agent: socket.socket | None = None  # while asking or hearing

    def ask(self) -> None:
        """Have the guest thaw; QEMU lets us in once the saver's connection, or an earlier one of ours, has gone."""
        self._hang_up("idle")
        agent = socket.socket(socket.AF_UNIX)
        agent.setblocking(False)
        try:
            agent.connect(self.path)
            agent.send(_QUESTION)
        except OSError:  # as many wait there as QEMU lets wait
            agent.close()
            self._wait()
            return
        self.agent, self.lines, self.step = agent, Lines(), "asking"
        self.selector.register(agent, selectors.EVENT_READ, self._hear)

    def tick(self) -> None:
        """Do what is due; called at least once a second while it waits."""
        if self.step == "waiting" and time.monotonic() > self.again:
            self.ask()

    def _hear(self) -> None:
        if self.agent is None:
            return  # hung up in the same turn
        try:
            data = self.agent.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for line in self.lines.feed(data):
            if line is not None and RESET in line:
                self.step = "hearing"
            elif self.step == "hearing":
                self._hang_up("idle")
                return
        if not data:
            self._wait()

    def _wait(self) -> None:
        self._hang_up("waiting")
        self.again = time.monotonic() + THAW_AGAIN

    def _hang_up(self, step: Literal["idle", "waiting"]) -> None:
        self.step = step
        if self.agent is not None:
            self.selector.unregister(self.agent)
            self.agent.close()
            self.agent = None

"""One command to a guest's agent, which is asked until it has answered."""

from __future__ import annotations

import selectors
import socket
import time

from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.qemu.qmp import RESET, Lines, parse_message, render_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

CALL_AGAIN = 1.0  # seconds until an agent that was not reached is asked again
_FIRST = 1 << 32  # numbers of questions: savers' are below


class AgentCall:
    """Asks one guest; `render` gives the command, anew each time.

    idle     it has nothing to do
    asking   it was asked, and has not begun to answer
    hearing  it has answered the question's first command: its next line is about the second
    waiting  it could not be asked, or has hung up: asked again in a while
    """

    def __init__(self, path: str, selector: selectors.BaseSelector, render: Callable[[], bytes]) -> None:
        self.path, self.selector, self.render = path, selector, render
        self.step: Literal["idle", "asking", "hearing", "waiting"] = "idle"
        self.again = 0.0
        self.number = _FIRST  # of the question
        self.lines = Lines()
        self.agent: socket.socket | None = None  # while asking or hearing

    def ask(self) -> None:
        """Have the guest do it; QEMU lets us in once the saver's connection, or an earlier one of ours, has gone."""
        self._hang_up("idle")
        agent = socket.socket(socket.AF_UNIX)
        agent.setblocking(False)
        try:
            agent.connect(self.path)
            agent.send(self._question())
        except OSError:  # among other reasons, QEMU lets only so many wait
            agent.close()
            self._wait()
            return
        self.agent, self.lines, self.step = agent, Lines(), "asking"
        self.selector.register(agent, selectors.EVENT_READ, self._hear)

    def _question(self) -> bytes:
        """Return the next question; RESET ends a command that a saver may have left unfinished.

        The answer to the first command has the question's number, which tells it from late answers to a saver.
        Hanging up at one of those would leave the agent trying to answer nobody, and a guest frozen.
        """
        self.number += 1
        return RESET + render_command("guest-sync-delimited", {"id": self.number}) + self.render()

    def tick(self) -> None:
        """Do what is due; called at least once a second while it waits."""
        if self.step == "waiting" and time.monotonic() > self.again:
            self.ask()

    def stop(self) -> None:
        """Ask no more."""
        self._hang_up("idle")

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
            if self.step == "hearing":
                self._hang_up("idle")
                return
            if line is not None and parse_message(line.rpartition(RESET)[2]) == {"return": self.number}:
                self.step = "hearing"
        if not data:
            self._wait()

    def _wait(self) -> None:
        self._hang_up("waiting")
        self.again = time.monotonic() + CALL_AGAIN

    def _hang_up(self, step: Literal["idle", "waiting"]) -> None:
        self.step = step
        if self.agent is not None:
            self.selector.unregister(self.agent)
            self.agent.close()
            self.agent = None

"""Sets the clock of a guest that has stood still, and whose clock is late by that time: its agent is told the time.

If no agent runs in the guest, nothing is sent: an agent that starts hours later would still find the message. Nothing
depends on the agent's answer, so it is asked once, and the connection is closed if it does not answer.
"""

from __future__ import annotations

import selectors
import time

from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.keeper.agent_call import AgentCall
from pcocc_runtime.qemu.qmp import render_command

if TYPE_CHECKING:
    from pcocc_runtime.keeper.transaction import Send
    from pcocc_runtime.qemu.qmp import Message

_SECONDS = 10.0  # for which the agent may keep others waiting


class GuestClock:
    """The clock of one guest."""

    def __init__(self, agent: str, selector: selectors.BaseSelector, send: Send) -> None:
        self.send, self.until = send, 0.0
        self.call = AgentCall(agent, selector, lambda: render_command("guest-set-time", {"time": time.time_ns()}))

    def set(self) -> None:
        """Have the clock set, if the guest runs an agent."""
        self.send("query-chardev", None, "clock-look")

    def take(self, message: Message) -> None:
        """Take a message of QEMU's; one that is about something else changes nothing."""
        if message.get("id") == "clock-look" and any(
            one.get("label") == "agent" and one.get("frontend-open") for one in message.get("return", ())
        ):
            self.until = time.monotonic() + _SECONDS
            self.call.ask()

    def is_waiting(self) -> bool:
        """Tell whether `tick` has something to do at a certain time."""
        return self.call.step != "idle"

    def tick(self) -> None:
        """Do what is due; called at least once a second while `is_waiting`."""
        if self.is_waiting() and time.monotonic() > self.until:
            self.call.stop()
        self.call.tick()

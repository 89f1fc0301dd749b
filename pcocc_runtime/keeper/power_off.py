"""How a VM ends: at once, or by its guest, which gets some time to power off; one that is to be stored waits before."""

from __future__ import annotations

import os
import signal
import socket
import time

from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.documents.vm import DRIVES_FILE
from pcocc_runtime.guest.shutdown import ask_agent

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from pcocc_runtime.documents.vm import VmFacts


STORE_SECONDS = 10.0  # in which whoever stores VMs at their job's end has to begin with it (vm/auto_checkpoint.py)


class PowerOff:
    """Asks a guest to power off, once, if it writes to lasting drives (its VM has a `grace`); else tells QEMU to quit.

    on       nobody has asked
    leaving  commands run in the VM, which Slurm has told to end, too: it ends after them
    waiting  the VM may be stored first; somebody has to begin with that until `last_call`
    asked    the guest is powering off, until `last_call`
    forced   its time is over
    """

    def __init__(self, facts: VmFacts, send: Callable[[str], None]) -> None:
        self.facts, self.send = facts, send
        self.step: Literal["on", "leaving", "waiting", "asked", "forced"] = "on"
        self.last_call = 0.0
        self.agent: socket.socket | None = None  # open as long as the guest has to read from it

    def grace(self) -> int:
        """Return how many seconds the guest has to power off, 0 if no drive of its VM outlives it."""
        given = os.path.exists(os.path.join(self.facts.directory, DRIVES_FILE))
        return max(self.facts.grace, self.facts.drives_grace if given else 0)

    def is_watching(self) -> bool:
        """Tell whether `is_wanted` and `is_late` must be asked now and then."""
        return self.step != "forced"

    def is_wanted(self) -> bool:
        """Tell whether Slurm ends the VM: its SIGTERM is pending in QEMU, where it is blocked."""
        return self.step == "on" and is_pending(self.facts.pid, signal.SIGTERM)

    def is_late(self) -> bool:
        """Tell whether the guest has used up its time."""
        return self.step == "asked" and time.monotonic() > self.last_call

    def wait(self) -> None:
        """Give somebody the time to begin with storing the VM."""
        self.step, self.last_call = "waiting", time.monotonic() + STORE_SECONDS

    def has_waited(self) -> bool:
        """Tell whether nobody has begun to store a VM that has waited for it."""
        return self.step == "waiting" and time.monotonic() > self.last_call

    def ask(self, paused: bool) -> None:
        """End the VM; a guest that is `paused` cannot power off."""
        grace = self.grace()
        if not grace or self.step == "forced" or paused:
            self.send("quit")
        elif self.step != "asked":
            self.step = "asked"
            self.last_call = time.monotonic() + grace
            self.send("system_powerdown")
            self.agent = ask_agent(self.facts.agent)

    def force(self) -> None:
        """End the VM at once."""
        self.step = "forced"
        self.send("quit")


def is_pending(pid: int, number: int) -> bool:
    """Tell whether a process has a blocked signal waiting (proc(5), SigPnd and ShdPnd)."""
    try:
        with open(f"/proc/{pid}/status") as stream:
            masks = [line.split()[1] for line in stream if line.startswith(("SigPnd:", "ShdPnd:"))]
    except OSError:
        return False
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)

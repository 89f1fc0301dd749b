"""How a boot is shown to the user who waits for it: the lines of its step, and a progress line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from pcocc_runtime.errors import one_line
from pcocc_runtime.qemu.qmp import Lines
from pcocc_runtime.terminal import ProgressLine, say


class LineReader:
    """Splits what arrives on a descriptor into lines of text."""

    def __init__(self, fd: int, handle: Callable[[str], None]) -> None:
        self.fd, self.handle, self.lines = fd, handle, Lines()

    def read(self) -> bool:
        """Read once and hand over whole lines; false at the end."""
        data = os.read(self.fd, 65536)
        for line in self.lines.feed(data):
            self.handle(
                f"(a line of more than {self.lines.longest} bytes)"
                if line is None
                else line.decode(errors="replace")
            )
        if not data and (rest := self.lines.take_rest()):
            self.handle(rest.decode(errors="replace"))
        return bool(data)


class BootProgress:
    """A line about a boot that takes a while: rewritten on a terminal, said once elsewhere."""

    def __init__(self, vms: int) -> None:
        self.vms, self.begin = vms, time.monotonic()
        self.line = ProgressLine()
        self.accel = ""

    def name_accelerator(self, accel: str) -> None:
        """Remember the accelerator to name in the line."""
        self.accel = f" with {one_line(accel)}"

    def show(self, started: int, ready: int) -> None:
        """Show how far the boot is, if it has taken long enough."""
        booting = f"booting {self.vms} {'VM' if self.vms == 1 else 'VMs'}{self.accel}"
        elapsed = time.monotonic() - self.begin
        self.line.show(f"pcocc: {booting}: {started} started, {ready} answering, {elapsed:.0f} s", booting)

    def clear(self) -> None:
        """Make room for a message."""
        self.line.clear()

    def done(self, seconds: float) -> None:
        """End the line."""
        if self.line.shown:
            self.clear()
            noun = "VM answers" if self.vms == 1 else "VMs answer"
            say(f"pcocc: {self.vms} {noun} after {seconds:.1f} s\n")

"""The operation `@log`: what a guest has written to its serial console, without characters that move a cursor."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.steps.console_history import ConsoleHistory
from pcocc_runtime.steps.qemu import find_end
from pcocc_runtime.terminal import printable

FOLLOW, LINES = "--follow", "--lines="
_SECONDS = 0.2  # between two looks: the file announces nothing


class LogWish(NamedTuple):
    """How many of the last lines, None for all that are kept; and whether to go on until the VM ends."""

    lines: int | None
    follow: bool


def check_words(words: Sequence[str]) -> LogWish:
    """Return what is wanted."""
    lines, follow = None, False
    for word in words:
        count = word.removeprefix(LINES)
        if word == FOLLOW:
            follow = True
        elif word.startswith(LINES) and count.isascii() and count.isdigit() and len(count) < 9:
            lines = int(count)
        else:
            raise RequestError(
                f"@log does not know {word[:80]!r}",
                f"it knows {FOLLOW} and {LINES}N; this is what 'pcocc log' runs",
            )
    return LogWish(lines, follow)


class Printer:
    """Writes the console's bytes as lines; when the step has several tasks, each line begins with the VM's name."""

    def __init__(self, vm: str) -> None:
        self.before = f"{vm}: " if int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1 else ""
        self.rest = b""

    def feed(self, data: bytes, last: int | None = None) -> None:
        """Write the lines that end in the data, or only the `last` of them."""
        *lines, self.rest = (self.rest + data).replace(b"\r", b"").split(b"\n")
        self._write(lines if last is None else lines[len(lines) - last :] if last < len(lines) else lines)

    def finish(self) -> None:
        """Write a last line without an end."""
        if self.rest:
            self._write([self.rest])
            self.rest = b""

    def _write(self, lines: Sequence[bytes]) -> None:
        text = "".join(f"{self.before}{printable(line.decode(errors='replace'))}\n" for line in lines)
        sys.stdout.write(text)
        sys.stdout.flush()


def operate(job: int, vm: str, wish: LogWish) -> int:
    """Write what is kept, and with `follow` what is added until the VM has ended."""
    directory = f"{naming.job_dir(job)}/{vm}"
    if not os.path.lexists(f"{directory}/console.log"):
        reason = find_end(directory)
        raise NodeError(
            f"{vm} has ended: {reason}" if reason else f"{vm} does not run on this node",
            "'pcocc ps -l' lists the VMs",
        )
    history, printer = ConsoleHistory(directory), Printer(vm)
    printer.feed(history.read_all(), wish.lines)
    while wish.follow and find_end(directory) is None and not history.has_ended():
        time.sleep(_SECONDS)  # QEMU writes the file, and nothing announces that it has
        printer.feed(history.read_new())
    if wish.follow:
        printer.feed(history.read_new())
    printer.finish()
    return 0

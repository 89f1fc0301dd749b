"""The operation `@monitor`: a command of QEMU's own monitor (HMP), or with no command a prompt for several."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pcocc_runtime import terminal
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.steps.qemu import Monitor, QemuGone

PROMPT = "(qemu) "


def check_words(words: Sequence[str]) -> str:
    """Return the command; an empty text asks for a prompt, which one VM only can have."""
    if not words and int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1:
        raise RequestError(
            "several monitors cannot be typed into at once", "name one VM, or write the command"
        )
    return " ".join(words)


def operate(job: int, vm: str, command: str) -> int:
    """Obey the command, or lines at a prompt until the input ends or says quit, which leaves the VM alone."""
    if command:
        with Monitor(job, vm) as monitor:
            text = ask(monitor, command)
        several = int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1
        sys.stdout.write("".join(f"{vm}: {line}\n" for line in text.splitlines()) if several else text)
        return 0
    return _prompt(job, vm)


def ask(monitor: Monitor, command: str) -> str:
    """Return what the monitor answers, without characters that move a cursor."""
    found = monitor.command("human-monitor-command", {"command-line": command})
    return terminal.printable(str(found).replace("\r", ""))


def _prompt(job: int, vm: str) -> int:
    """Obey lines; between two of them the monitor is free for others, even while a prompt is open."""
    at_terminal = os.isatty(0)
    if at_terminal:
        with Monitor(job, vm) as monitor:
            _complete(ask(monitor, "help"))
        sys.stdout.write(f"the monitor of {vm}; quit or Ctrl-D leaves it, and the VM as it is\n")
    while True:
        try:
            line = input(PROMPT if at_terminal else "").strip()
        except EOFError:
            return 0
        if line in ("quit", "q"):
            return 0
        if not line:
            continue
        try:
            with Monitor(job, vm) as monitor:
                sys.stdout.write(ask(monitor, line))
                sys.stdout.flush()
        except QemuGone:
            raise
        except NodeError as error:
            terminal.say_error(error)


def command_names(text: str) -> list[str]:
    """Return the commands in the monitor's own help; a line begins with a command, or with two names of it (a|b)."""
    return sorted(
        {
            name
            for line in text.splitlines()
            for name in line.partition(" ")[0].split("|")
            if name and name[0].isalpha()
        }
    )


def _complete(text: str) -> None:
    """Have Tab complete the names of commands."""
    try:
        import readline
    except ImportError:
        return
    names = command_names(text)

    def complete(begun: str, index: int) -> str | None:
        found = [f"{name} " for name in names if name.startswith(begun)]
        return found[index] if index < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")

"""How a guest is asked to power off."""

from __future__ import annotations

import socket

from pcocc_runtime.qemu.qmp import RESET, render_command


def is_pending(pid: int, number: int) -> bool:
    """Tell whether a process has a blocked signal waiting (proc(5), SigPnd and ShdPnd)."""
    try:
        with open(f"/proc/{pid}/status") as stream:
            masks = [line.split()[1] for line in stream if line.startswith(("SigPnd:", "ShdPnd:"))]
    except OSError:
        return False
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def ask_agent(path: str) -> socket.socket | None:
    """Ask the guest agent to power the guest off, beside ACPI, which not every guest hears; the socket must stay open."""
    agent = socket.socket(socket.AF_UNIX)
    agent.setblocking(False)
    try:
        agent.connect(path)
        agent.send(RESET + render_command("guest-shutdown"))  # what another client may have left half said ends there
    except OSError:
        agent.close()
        return None
    return agent

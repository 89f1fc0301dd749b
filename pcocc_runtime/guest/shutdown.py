"""Asks a guest's agent to power the guest off. It imports little, because every VM's keeper imports it."""

from __future__ import annotations

import socket

from pcocc_runtime.qemu.qmp import RESET, render_command


def ask_agent(path: str) -> socket.socket | None:
    """Ask the agent to power the guest off, as not all guests obey ACPI; the returned socket must stay open."""
    agent = socket.socket(socket.AF_UNIX)
    agent.setblocking(False)
    try:
        agent.connect(path)
        # RESET ends a command that another client may have left unfinished
        agent.send(RESET + render_command("guest-shutdown"))
    except OSError:
        agent.close()
        return None
    return agent

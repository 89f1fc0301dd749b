"""Asks a guest's agent to power the guest off. Imports little: the keeper of every VM does."""

from __future__ import annotations

import socket

from pcocc_runtime.qemu.qmp import RESET, render_command


def ask_agent(path: str) -> socket.socket | None:
    """Ask the agent to power the guest off, beside ACPI, which not all guests obey; the socket must stay open."""
    agent = socket.socket(socket.AF_UNIX)
    agent.setblocking(False)
    try:
        agent.connect(path)
        # what another client may have left half said ends there
        agent.send(RESET + render_command("guest-shutdown"))
    except OSError:
        agent.close()
        return None
    return agent

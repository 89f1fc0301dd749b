"""What the keeper of a VM tells the starter of its boot step, and how a VM's end is put. Imports nothing: it is on every way."""

from __future__ import annotations

TOKEN = "PCOCC_TASK"
# keeper to task: the connection stands, the VM has ended and (then) why; task to keeper: the command has left nothing
UP, ENDED, DONE = b"up\n", b"ended ", b"done\n"


def task_token(job: str, step: str, task: str) -> str:
    """Return what marks a task's processes in a guest; it ends in a dot, so that none begins with another."""
    return f"{job}.{step}.{task}."


PREFIX = "@pcocc "  # begins each line of the keeper's: JSON follows

KILLED = "its QEMU was killed"
# QEMU's ShutdownCause as of 7.2 (qapi/run-state.json): what a user reads; and the keeper's own word for an end without a cause
REASONS = {
    "guest-shutdown": "its guest powered it off",
    "guest-reset": "its guest reset it",
    "guest-panic": "its guest's kernel panicked",
    "host-qmp-quit": "it was stopped through its monitor",
    "host-qmp-system-reset": "it was reset through its monitor",
    "host-signal": "a signal ended its QEMU",
    "host-error": "its QEMU met an error",
    "host-ui": "it was closed",
    "killed": KILLED,
}


def explain_end(reason: str) -> str:
    """Return a clause that says why a VM ended."""
    return REASONS.get(reason, reason)

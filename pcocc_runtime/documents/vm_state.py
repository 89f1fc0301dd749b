"""The state of a VM: the file in its directory that holds it, and what its keeper tells the tasks of VM steps."""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import Record, parse_record

TOKEN = "PCOCC_TASK"
# keeper to task: the connection stands, the VM has ended and (then) why; task to keeper: the command has left
# nothing
UP, ENDED, DONE = b"up\n", b"ended ", b"done\n"


def task_token(job: str, step: str, task: str) -> str:
    """Return the token that marks a task's processes in a guest; it ends in a dot, so no token begins with another."""
    return f"{job}.{step}.{task}."


STATE_FILE = "state"  # not there while the VM boots
STORED_FIRST_FILE = "stored-first"  # there if the VM is stored before its job ends


class VmState(Record):
    """A VM that is `up` (after `seconds`), was `silent` for `seconds`, or has `ended` for a `reason`, `asked` or not.

    One that is `off` was powered off by its guest, and can be powered on again.
    """

    state: str
    seconds: float = 0
    reason: str = ""
    asked: bool = False


def encode_state(state: VmState) -> str:
    """Return the content of the file."""
    return json.dumps(state._asdict())


def decode_state(text: str) -> VmState:
    """Return the state that a file holds; ValueError with a sentence when it holds none."""
    try:
        found = parse_record(VmState, json.loads(text))
        if found.state not in ("up", "silent", "ended", "off"):
            raise ValueError("it is not a known state")
        return found
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file with the VM's state cannot be read: {error}") from None


# QEMU's ShutdownCause as of 7.2 (qapi/run-state.json): what a user reads; and the keeper's own word for an
# end without a cause
REASONS = {
    "guest-shutdown": "its guest powered it off",
    "guest-reset": "its guest reset it",
    "guest-panic": "its guest's kernel panicked",
    "host-qmp-quit": "it was stopped through its monitor",
    "host-qmp-system-reset": "it was reset through its monitor",
    "host-signal": "a signal ended its QEMU",
    "host-error": "its QEMU failed",
    "host-ui": "it was closed",
    "killed": "its QEMU was killed",
}


def explain_end(reason: str) -> str:
    """Return why a VM ended, as a clause."""
    return REASONS.get(reason, reason)

"""Why an operation on a VM was in vain: the VM has ended, is not there, or has not started; the same words for all."""

from __future__ import annotations

import os
import socket
import time

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError
from pcocc_runtime.steps.qemu import find_end

_REASON_SECONDS = 2.0  # from QEMU's end until the keeper has written why
_LIST = "'pcocc ps -l' lists the VMs that run"


def find_fate(job: int, vm: str) -> NodeError | None:
    """Return why a VM of this node does not run, None if it does."""
    directory = f"{naming.job_dir(job)}/{vm}"
    if not os.path.isdir(directory):
        return NodeError(f"{vm} does not run on this node", "'pcocc ps -l' lists the VMs and their nodes")
    if (reason := find_end(directory)) is not None:
        return NodeError(f"{vm} has ended: {reason}", _LIST)
    if not os.path.lexists(f"{directory}/qmp"):
        return NodeError(f"{vm} has not started yet", "try again in a moment; 'pcocc ps -l' says when it is up")
    if _has_qemu(directory):
        return None
    deadline = time.monotonic() + _REASON_SECONDS
    while (reason := find_end(directory)) is None and time.monotonic() < deadline and os.path.isdir(directory):
        time.sleep(0.05)  # the keeper writes a file, which nothing announces
    return NodeError(f"{vm} has ended: {reason}" if reason else f"{vm} has just ended", _LIST)


def _has_qemu(directory: str) -> bool:
    """Tell whether a QEMU listens: one that is talking to somebody else has us wait, and has not ended."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            connection.connect(f"{directory}/qmp")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

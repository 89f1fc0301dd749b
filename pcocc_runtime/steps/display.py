"""The operation `@display`: the task's input and output become a connection to the VM's display."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.steps.nc import carry, write_all
from pcocc_runtime.steps.qemu import find_end, vm_directory

PROTOCOLS = ("spice", "vnc")
WHICH = "--which"


def check_words(words: Sequence[str]) -> bool:
    """Return whether the caller asks only for the display's kind."""
    if list(words) not in ([], [WHICH]):
        raise RequestError(f"@display takes {WHICH} or nothing", "this is what 'pcocc display' runs")
    if int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1:
        raise RequestError("a display shows one VM only", "name one: vm0")
    return bool(words)


def operate(job: int, vm: str, which: bool) -> int:
    """Write the display's kind, or connect to it and pass on bytes until it is closed."""
    directory = vm_directory(job, vm)
    kind = next((kind for kind in PROTOCOLS if os.path.exists(f"{directory}/{kind}")), None)
    if kind is None:
        raise NodeError(
            f"{vm} has no display",
            "give its template 'remote-display: vnc'; 'pcocc console' has its serial line",
        )
    if which:
        write_all(1, f"{kind}\n".encode())
        return 0

    def raise_if_ended() -> None:
        if (reason := find_end(directory)) is not None:
            raise NodeError(f"{vm} has ended: {reason}")

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{directory}/{kind}")
        carry(connection, raise_if_ended)
    return 0

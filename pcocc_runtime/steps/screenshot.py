"""The operation `@screenshot`: what a VM's display shows, written to the task's output as a PNG."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.steps.nc import write_all
from pcocc_runtime.steps.qemu import Monitor


def check_words(words: Sequence[str]) -> None:
    """Refuse words, and several VMs: their pictures would be mixed in one stream."""
    if words:
        raise RequestError("@screenshot takes no words", "this is what 'pcocc screenshot vmN' runs")
    if int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1:
        raise RequestError("a screenshot shows one VM only", "name one: vm0")


def operate(job: int, vm: str, _words: None) -> int:
    """Have QEMU write a file, and pass it on."""
    with Monitor(job, vm) as monitor:
        path = f"{monitor.directory}/screen-{os.getpid()}.png"
        try:
            monitor.command("screendump", {"filename": path, "format": "png"})
            with open(path, "rb") as stream:
                data = stream.read()
        except NodeError as error:
            if "no console" in error.message.lower() or "There is no console" in error.message:
                raise NodeError(
                    f"{vm} has no display",
                    "give its template 'remote-display: vnc'; 'pcocc console' has its serial line",
                ) from None
            raise
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
    write_all(1, data)
    return 0

"""The operation `@dump`: a VM's memory as an ELF file, which crash(8) reads. The VM stands still meanwhile."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pcocc_runtime import terminal
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.images.sizes import render_size
from pcocc_runtime.steps.qemu import Monitor

_LOOK_SECONDS = 0.5


def check_words(words: Sequence[str]) -> str:
    """Return the file's absolute path; RequestError when several VMs would write the same file."""
    if len(words) != 1 or not words[0].startswith("/"):
        raise RequestError(
            "@dump takes the absolute path of a file", "this is what 'pcocc dump vmN FILE' runs"
        )
    if int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1 and "%v" not in words[0]:
        raise RequestError(
            "several VMs cannot be dumped into one file", "write %v in its name: it stands for the VM's name"
        )
    return words[0]


def operate(job: int, vm: str, path: str) -> int:
    """Write the file under another name, and rename it when it is whole."""
    target = Path(path.replace("%v", vm))
    part = Path(f"{target}.part-{os.getpid()}")
    with Monitor(job, vm) as monitor:
        try:
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RequestError(f"{target} cannot be written on the node of {vm}: {error.strerror}") from None
        try:
            with open(fd, "rb", closefd=True):
                _dump(monitor, fd)
                os.fsync(fd)
                size = os.fstat(fd).st_size
            part.rename(target)
        except BaseException:  # also an interrupt: no part of a dump stays
            with contextlib.suppress(OSError):
                part.unlink()
            raise
    sys.stdout.write(f"{vm}: {target} ({render_size(size)})\n")
    return 0


def _dump(monitor: Monitor, fd: int) -> None:
    monitor.send_file("dump", fd)
    monitor.command("dump-guest-memory", {"paging": False, "protocol": "fd:dump", "detach": True})
    with terminal.Meter() as meter:
        advance = meter.begin(f"{monitor.vm}: writing its memory")
        while True:
            try:
                monitor.next(_LOOK_SECONDS)
            except TimeoutError:
                pass
            state = monitor.command("query-dump")
            advance(int(state.get("completed", 0)), int(state.get("total", 0)))
            if state.get("status") == "completed":
                return
            if state.get("status") == "failed":
                raise NodeError(
                    f"the memory of {monitor.vm} could not be written", "is the file system full?"
                )

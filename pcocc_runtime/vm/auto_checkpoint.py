"""Has a job's VMs stored without being told to: now and then, and before Slurm ends the job (--pcocc-checkpoint).

`pcocc checkpoint` does it, a process of the starter's. At the job's end the VMs stand still once they are stored, so
that nothing that they do is lost, and persistent drives stay as the checkpoint knows them; if the job is given more
time, they go on. A job that is to make way for another is told by Slurm's SIGTERM, which the keepers hear
(keeper/power_off.py).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Literal

from pcocc_runtime.documents.cluster import Checkpoints
from pcocc_runtime.errors import NodeError
from pcocc_runtime.slurm.commands import read_job_end
from pcocc_runtime.slurm.steps import operation_environment
from pcocc_runtime.slurm.text import JobEnd
from pcocc_runtime.system import installed

_LOOK = 120.0  # seconds: a job may be given less time than it had
_LOOK_HELD = 30.0  # or more
_SPARE = 60.0  # seconds between a checkpoint and the job's end
_MEBIBYTES = 1024.0  # that are stored in a second, where none has been stored yet


class AutoCheckpoint:
    """Stores the VMs of one job.

    waiting  until `due`, or `look`: then Slurm is asked when the job ends
    storing  they are being stored, after which they go on
    holding  they are being stored, after which they stand still
    held     they stand still
    over     they have ended, or are not to be stored any more
    """

    def __init__(self, job: int, plan: Checkpoints, memory: int, tell: Callable[[str], None]) -> None:
        self.job, self.plan, self.memory, self.tell = job, plan, memory, tell
        self.step: Literal["waiting", "storing", "holding", "held", "over"] = "waiting"
        self.due = time.monotonic() + plan.every if plan.every else None
        self.look = time.monotonic() if plan.at_end else None
        self.end: JobEnd | None = None  # as last seen
        self.is_asked = False  # Slurm ends the VMs
        self.took = 0.0  # seconds, for the last one
        self.begun = 0.0
        self.said = b""
        self.why = ""  # the last one failed
        self.child: subprocess.Popen[bytes] | None = None

    def patience(self) -> float | None:
        """Return in how many seconds `tick` has something to do, None for never."""
        if self.step in ("storing", "holding"):
            return 0.5
        waits = [one for one in (self.due if self.step == "waiting" else None, self.look) if one is not None]
        return None if not waits or self.step == "over" else max(min(waits) - time.monotonic(), 0.0)

    def tick(self) -> None:
        """Do what is due."""
        if self.child is not None:
            self._hear(self.child)
        now = time.monotonic()
        if self.look is not None and now >= self.look and self.step in ("waiting", "held"):
            self._look()
        if self.step == "waiting" and self.due is not None and now >= self.due:
            self._begin("storing")

    def ask(self) -> None:
        """Store the VMs, which Slurm ends, if the job runs on: in one that has ended no step can begin."""
        if self.is_asked or not self.plan.at_end:
            return
        self.is_asked = True
        if self.step == "waiting":
            self._store_last()

    def close(self) -> None:
        """Forget it: the VMs have ended."""
        if self.child is not None and self.child.stdin is not None:
            self.child.stdin.close()
        self.step = "over"

    def _look(self) -> None:
        """Ask Slurm when the job ends, and begin or undo what is to be done before that."""
        self.end = self._read_end()
        self.look = time.monotonic() + (_LOOK_HELD if self.step == "held" else _LOOK)
        if self.end is None or self.end.at is None:
            return
        left = self.end.at - time.time() - self._spare()
        if self.step == "held":
            if left > _LOOK_HELD and not self.is_asked:
                self._let_go_on()
        elif left <= 0:
            self._begin("holding")
        else:
            self.look = min(self.look, time.monotonic() + left)

    def _store_last(self) -> None:
        self.end = self._read_end()
        if self.end is not None and self.end.runs:
            self._begin("holding")

    def _read_end(self) -> JobEnd | None:
        try:
            return read_job_end(self.job)
        except NodeError:
            return None  # slurmctld is away: asked again

    def _spare(self) -> float:
        """Return how many seconds before the job's end the VMs are to be stored."""
        return float(self.plan.before) or _SPARE + (2 * self.took if self.took else self.memory / _MEBIBYTES)

    def _begin(self, step: Literal["storing", "holding"]) -> None:
        argv = [installed.COMMAND, "checkpoint", f"--job={self.job}", self.plan.directory]
        self.step, self.begun, self.said = step, time.monotonic(), b""
        if step == "holding":
            argv.insert(2, "--hold")
        try:
            self.child = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=operation_environment(), start_new_session=True, cwd="/",
            )  # fmt: skip
        except OSError as error:
            self._fail(f"{argv[0]} cannot be run: {error.strerror}")
            return
        assert self.child.stdout is not None
        os.set_blocking(self.child.stdout.fileno(), False)

    def _hear(self, child: subprocess.Popen[bytes]) -> None:
        """Take what the command says, and its end."""
        assert child.stdout is not None
        status = child.poll()
        while said := child.stdout.read():
            self.said = (self.said + said)[-8192:]
        if self.step == "holding" and self.said.startswith(b"stored "):
            self.step, self.look = "held", time.monotonic() + _LOOK_HELD
            self.tell(f"pcocc: {self.said.decode(errors='replace').strip()} until the job ends")
            if self.is_asked and not (self.end and self.end.preempted):
                self.close()  # they were told to end, and the job goes on without them
        if status is not None:
            self._note_end(child, status)

    def _note_end(self, child: subprocess.Popen[bytes], status: int) -> None:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        child.stdout.close()
        self.child, self.took = None, time.monotonic() - self.begun
        if self.step in ("storing", "holding") and status:
            self._fail(self.said.decode(errors="replace").strip() or f"the command ended with {status}")
        else:
            self.why = ""
            self._wait()

    def _fail(self, why: str) -> None:
        """Tell why, once for as long as it stays the same."""
        if why != self.why:
            self.tell(f"pcocc: the VMs of job {self.job} could not be stored in {self.plan.directory}\n{why}")
        self.why = why
        self._wait()

    def _wait(self) -> None:
        """Wait for the next one; those who failed at the job's end have no second chance."""
        if self.step == "over":
            return
        was, self.step = self.step, "waiting"
        if self.plan.every:
            self.due = time.monotonic() + self.plan.every
        if was == "holding":
            self.look = None
        if self.is_asked and was == "storing":
            self._store_last()

    def _let_go_on(self) -> None:
        assert self.child is not None and self.child.stdin is not None
        try:
            self.child.stdin.write(b"go on\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            return  # it has ended, and the VMs with it
        self.tell(f"pcocc: job {self.job} has been given more time, and its VMs go on")

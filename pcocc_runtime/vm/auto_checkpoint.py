"""Stores a job's VMs by itself (--pcocc-checkpoint): at regular intervals, and before Slurm ends the job.

The process that started the VMs runs this, and has `pcocc checkpoint` do the storing in a child. Before the
job's end the VMs stay paused once they are stored: nothing that they would still do could be kept, and
persistent drives remain as the checkpoint describes them. If the job is given more time, the VMs go on. A job
that is preempted gets SIGTERM from Slurm, which the keepers receive (keeper/power_off.py); it reaches
`AutoCheckpoint.ask`.
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

_LOOK = 120.0  # seconds between two questions when the job ends: its time limit may be lowered
_LOOK_HELD = 30.0  # seconds, while the VMs are paused: the limit may be raised
_SPARE = 60.0  # seconds that are left between a checkpoint and the job's end
_MEBIBYTES = 1024.0  # per second: the speed of storing that is assumed before the first checkpoint


class AutoCheckpoint:
    """Stores the VMs of one job. `step` says what is being done:

    waiting  for `due`, the next regular checkpoint, or for `look`, when Slurm is asked when the job ends
    storing  the VMs are being stored, and then go on
    holding  the VMs are being stored for the last time, and then stay paused
    held     the VMs are stored and paused
    over     the VMs have ended, or are not to be stored any more
    """

    def __init__(self, job: int, plan: Checkpoints, memory: int, tell: Callable[[str], None]) -> None:
        self.job, self.plan, self.memory, self.tell = job, plan, memory, tell
        self.step: Literal["waiting", "storing", "holding", "held", "over"] = "waiting"
        self.due = time.monotonic() + plan.every if plan.every else None
        self.look = time.monotonic() if plan.at_end else None
        self.end: JobEnd | None = None  # what Slurm last said about it
        self.is_asked = False  # Slurm has told the VMs to end
        self.took = 0.0  # seconds that the last checkpoint needed
        self.begun = 0.0  # monotonic seconds
        self.said = b""  # the end of what the child has printed
        self.why = ""  # why the last checkpoint failed; "" if it did not
        self.child: subprocess.Popen[bytes] | None = None

    def patience(self) -> float | None:
        """Return the seconds until `tick` has something to do; None for never."""
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
        """Store the VMs, which Slurm has told to end; not if the job has ended, as no step can begin in it."""
        if self.is_asked or not self.plan.at_end:
            return
        self.is_asked = True
        if self.step == "waiting":
            self._store_last()

    def close(self) -> None:
        """Store nothing any more, because the VMs have ended; a checkpoint that is being made is given up."""
        if self.child is not None and self.child.stdin is not None:
            self.child.stdin.close()
        self.step = "over"

    def _look(self) -> None:
        """Ask Slurm when the job ends; begin the last checkpoint in time, or let paused VMs go on."""
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
            return None  # slurmctld does not answer: it is asked again later

    def _spare(self) -> float:
        """Return how many seconds before the job's end the last checkpoint has to begin."""
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
        """Read what the child has printed, and notice that it has stored the VMs, or ended."""
        assert child.stdout is not None
        status = child.poll()
        while said := child.stdout.read():
            self.said = (self.said + said)[-8192:]
        if self.step == "holding" and self.said.startswith(b"stored "):
            self.step, self.look = "held", time.monotonic() + _LOOK_HELD
            self.tell(f"pcocc: {self.said.decode(errors='replace').strip()} until the job ends")
            if self.is_asked and not (self.end and self.end.preempted):
                self.close()  # only the VMs were told to end; the job goes on without them
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
        """Tell the user why a checkpoint failed, once for as long as the reason stays the same."""
        if why != self.why:
            self.tell(f"pcocc: the VMs of job {self.job} could not be stored in {self.plan.directory}\n{why}")
        self.why = why
        self._wait()

    def _wait(self) -> None:
        """Wait for the next regular checkpoint; the last one, before the job's end, is not tried a second time."""
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
            return  # the child has ended, and the VMs with it
        self.tell(f"pcocc: job {self.job} has been given more time, and its VMs go on")

"""Whether the boot step's slurmstepds are alive: srun itself waits ten minutes for one that has died early."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection

from pcocc_runtime.errors import NodeError
from pcocc_runtime.slurm.commands import is_step_whole, list_nodes, read_boot_steps, read_launch_seconds

LOOK_SECONDS = 2.0
LATE_SECONDS = 4.0  # after which a node that has not begun with the step is reported
_NAMED = 8  # nodes


class StepdWatch:
    """Asks Slurm again and again, in a thread of its own, so that a busy slurmctld or slurmd holds nobody up."""

    def __init__(self, job: int, pid: int) -> None:
        self.job, self.pid = job, pid
        self.nodes: list[str] = []
        # when Slurm knew the step first, and how long a node may take to begin with it
        self.begin, self.launch_seconds = 0.0, 0.0
        # whether all were there once, and how often one was not, lately
        self.was_whole, self.missing = False, 0
        self.told = False
        self._over = threading.Event()
        threading.Thread(target=self._look_on, daemon=True).start()

    def stop(self) -> None:
        """Stop asking."""
        self._over.set()

    def _look_on(self) -> None:
        while not self._over.wait(2 * LOOK_SECONDS if self.was_whole else LOOK_SECONDS):
            try:
                self._look()
            except NodeError:
                continue  # slurmctld is too busy to answer: that says nothing of the nodes

    def _look(self) -> None:
        step = next(
            (step for step in read_boot_steps(self.job) if step.is_of(self.pid, os.uname().nodename)), None
        )
        if step is None:
            return
        if not self.nodes:
            self.launch_seconds = read_launch_seconds()
            self.nodes, self.begin = list_nodes(step.nodes), time.monotonic()
        whole = is_step_whole(self.job, step)
        if whole is not None:
            self.missing = 0 if whole else self.missing + 1
            self.was_whole |= whole

    def find_end(self, alive: Collection[str]) -> str | None:
        """Return the nodes that the step has lost, or that have not begun with it in the time that srun gives them.

        Slurm does not say which nodes these are: it may be any that is not `alive`.
        """
        late = time.monotonic() > self.begin + self.launch_seconds + LATE_SECONDS
        return self._name(alive) if self.missing > 1 and (self.was_whole or late) else None

    def find_delay(self, alive: Collection[str]) -> str | None:
        """Return, once, the nodes that take long to begin: a prolog runs there, or slurmstepd has ended at once."""
        if self.told or self.was_whole or self.missing < 2 or time.monotonic() < self.begin + LATE_SECONDS:
            return None
        self.told = True
        return self._name(alive)

    def _name(self, alive: Collection[str]) -> str:
        names = [name for name in self.nodes if name not in alive] or self.nodes
        more = f" and {len(names) - _NAMED} other nodes" if len(names) > _NAMED else ""
        return ", ".join(names[:_NAMED]) + more

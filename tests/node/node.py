"""The node machine as the tests see it: commands run by its users, a job with VMs, and the machine's power."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.machinelib import machine, ssh, status
from tests.machinelib.place import Place
from tests.machinelib.ssh import Done
from tests.waiting import limit, wait_for

_SLURMD_SAYS = "systemctl status --no-pager slurmd slurmctld; sinfo --Node --long"
VERDICT = "/run/pcocc/.state/accel.json"
SYSTEMD_JOB = "/system.slice/node_slurmstepd.scope/job_{}"  # Slurm's cgroup of a job, where systemd gives slurmstepd a scope


@dataclass
class Node:
    """Commands in the machine. `history` keeps what each of them said, for the report of a failure."""

    place: Place
    history: list[str] = field(default_factory=list)

    def run(self, argv: str | Sequence[str], user: str = "root", data: bytes | None = None, timeout: float = 300,
            status: int | None = None) -> Done:
        """Run a command, a shell's when it is one string; with `status`, fail when it ends otherwise."""
        words = ["sh", "-c", argv] if isinstance(argv, str) else list(argv)
        begin = time.monotonic()
        done = ssh.run(self.place, words, user, data, limit(timeout))
        said = "".join(f"\n  {name}| {line}" for name, text in (("out", done.stdout), ("err", done.stderr))
                       for line in text[-3000:].splitlines()[-40:])  # fmt: skip
        self.history.append(f"{user}: {shlex.join(words)[:400]} -> {done.returncode} ({time.monotonic() - begin:.1f} s){said}")
        if status is not None:
            assert done.returncode == status, f"{argv} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done

    def out(self, argv: str | Sequence[str], user: str = "root", **more: Any) -> str:
        """Run a command that must succeed; return its output without the last newline."""
        return self.run(argv, user, status=0, **more).stdout.rstrip("\n")

    def read(self, path: str) -> str:
        """Return the text of a file, without the last newline."""
        return self.out(["cat", path])

    def write(self, path: str, text: str, user: str = "root") -> None:
        """Write a file."""
        self.out(["tee", path], user, data=text.encode())

    def json(self, argv: str | Sequence[str]) -> Any:
        """Return what a command writes in JSON."""
        return json.loads(self.out(argv))

    def processes(self, pattern: str) -> dict[int, str]:
        """Return the command lines of the processes of which one matches a regular expression, by their numbers."""
        lines = self.out(["ps", "-ww", "-e", "-o", "pid=,args="]).splitlines()
        found = {int(pid): words for pid, words in (line.split(maxsplit=1) for line in lines)}
        return {pid: words for pid, words in found.items() if re.search(pattern, words)}

    def qemus(self, job: int) -> dict[str, int]:
        """Return the process of each VM of a job."""
        found = self.processes(rf"^\S*qemu-system\S* .*guest=job{job}-")
        return {re.search(r"guest=job\d+-(vm\d+)", words)[1]: pid for pid, words in found.items()}  # type: ignore[index]

    def is_over(self, job: int) -> bool:
        """Tell whether a job has ended: after some minutes slurmctld does not know it any more.

        A squeue that does not reach slurmctld does not tell.
        """
        done = self.run(["squeue", "--noheader", f"--jobs={job}"])
        return not done.stdout.strip() if done.returncode == 0 else "Invalid job id" in done.stderr

    def node_state(self) -> str:
        """Return the state of the node as Slurm names it."""
        return self.out(["sinfo", "--noheader", "--format=%T"])

    def wait_idle(self, seconds: float = 120) -> None:
        """Wait until there is no job, the node is idle, and nothing is left."""
        wait_for(lambda: self.node_state() == "idle", self.node_state, seconds, 1)
        wait_for(lambda: not self.leftovers(), lambda: f"left: {self.leftovers()}", seconds, 1)

    def leftovers(self) -> list[str]:
        """Return what there is of pcocc's jobs."""
        return status.find_leftovers(self.place)

    def power_cycle(self, threads: int = 1) -> None:
        """Take the machine's power away and give it back, with so many threads in each core; wait until it is up."""
        self.history.append("power cycle")
        machine.power_cycle(self.place, threads)
        assert (
            self.run("systemctl is-system-running --wait", timeout=machine.BOOT_PATIENCE).stdout == "running\n"
        ), self.out("systemctl --failed")


@dataclass(frozen=True)
class Job:
    """A batch job with VMs; steps are started with the environment that its script had."""

    node: Node
    number: int
    user: str = "alice"

    def srun(self, *words: str, timeout: float = 300) -> Done:
        """Run srun in the job."""
        script = f". ~/job{self.number}; exec srun {shlex.join(words)}"
        return self.node.run(["bash", "-c", script], self.user, timeout=timeout)

    def vm(self, command: str, vms: str = "vm0", timeout: float = 300) -> str:
        """Run a shell's command in VMs; it must succeed; return its output."""
        done = self.srun(f"--pcocc-vm={vms}", "sh", "-c", command, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.rstrip("\n")

    def log(self) -> str:
        """Return what the job's script has printed."""
        return self.node.run(["cat", f"/home/{self.user}/job{self.number}.log"]).stdout

    def wait_for_qemus(self, count: int) -> dict[str, int]:
        """Wait until the node is set up for the job, and return the process of each of its VMs, which boot from then on."""

        def find() -> dict[str, int] | None:
            found = self.node.qemus(self.number)
            assert found or not self.node.is_over(self.number), self.log()
            return found if len(found) == count else None

        return wait_for(find, lambda: f"no VMs: {self.log()}", 120, 1) or {}

    def wait_until_up(self) -> None:
        """Wait until a step has run in its VMs."""

        def is_up() -> bool:
            if self.node.run(["test", "-e", f"/home/{self.user}/job{self.number}"]).returncode == 0:
                return True
            log = self.log()
            assert "is emulated" not in log and not self.node.is_over(self.number), log  # in a VM that takes an hour
            return False

        wait_for(is_up, lambda: f"no VMs: {self.log()}", 300, 2)

    def end(self) -> None:
        """End the job, and wait until nothing of it is left; other jobs may go on, such as that of the VMs that tests share."""
        self.node.run(["scancel", str(self.number)], self.user)
        wait_for(lambda: self.node.is_over(self.number), f"the end of job {self.number}", 120, 1)
        if status.list_jobs(self.node.place):
            wait_for(lambda: not self.leftovers(), lambda: f"left: {self.leftovers()}", 120, 1)
        else:
            self.node.wait_idle()

    def leftovers(self) -> list[str]:
        """Return what of pcocc is there and has the job's number."""
        return find_own(self.number, self.node.leftovers())


def restart_slurm(node: Node) -> None:
    """Restart Slurm's daemons, and wait until they have found each other."""
    node.out("systemctl restart slurmctld slurmd")
    wait_for(lambda: node.run("sinfo --noheader --format=%T").stdout == "idle\n", lambda: node.run(_SLURMD_SAYS).stdout, 120, 1)


def find_own(job: int, lines: Sequence[str]) -> list[str]:
    """Return those lines of tests/machinelib/leftovers that are of a job."""
    return [line for line in lines if re.search(rf"(guest=job|/|pcocc-|interface pcn){job}(?!\d)", line)]


def read_verdict(node: Node) -> Any:
    """Return what the node has found out about KVM."""
    return json.loads(node.read(VERDICT))


def accelerator(node: Node, pid: int) -> str:
    """Return the accelerator that a VM's QEMU was started with."""
    words = node.read(f"/proc/{pid}/cmdline").split("\0")
    return words[words.index("-accel") + 1]


def submit(node: Node, template: str, *more: str, user: str = "alice") -> Job:
    """Submit a batch job that boots its VMs and stays, with more options of sbatch; return it at once."""
    script = "#!/bin/bash\nexport -p >~/job$SLURM_JOB_ID.new\nsrun --pcocc-vm -l hostname >~/names$SLURM_JOB_ID || exit\n"
    script += "mv ~/job$SLURM_JOB_ID.new ~/job$SLURM_JOB_ID\nexec tail -f /dev/null\n"
    options = [f"--pcocc-template={template}", f"--output=/home/{user}/job%j.log", "--parsable", *more]
    return Job(node, int(node.out(["sbatch", *options], user, data=script.encode())), user)


def submit_cluster(node: Node, template: str, *more: str, user: str = "alice") -> Job:
    """Do the same, but return the job when its VMs are up."""
    job = submit(node, template, *more, user=user)
    job.wait_until_up()
    return job


class SharedVms:
    """VMs that tests share: booted for the first test that asks for them, and again when a test has ended them."""

    def __init__(self, node: Node, template: str, *more: str) -> None:
        self.node, self._template, self._more = node, template, more
        self.job: Job | None = None

    def ensure(self) -> Job:
        """Return the job, whose VMs are up."""
        if self.job is None or self.node.is_over(self.job.number):
            self.job = submit(self.node, self._template, *self._more)
        self.job.wait_until_up()
        return self.job

    def end(self) -> None:
        """End the job, if it has not ended."""
        if self.job is not None and not self.node.is_over(self.job.number):
            self.job.end()

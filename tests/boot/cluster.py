"""A job with VMs that stays while a test, or all of them, uses it."""

from __future__ import annotations

import shlex
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.boot.box import HOME, JOB_NAME, Box, Done, Process
from tests.waiting import wait_for


class Cluster:
    """A job made by salloc. Its steps are started with the environment that salloc gave to its command."""

    def __init__(self, box: Box, environ: dict[str, str]) -> None:
        self.box, self.environ = box, environ
        self.job = int(environ["SLURM_JOB_ID"])

    def srun(self, argv: str | Sequence[str], **more: object) -> Done:
        """Run srun with these words inside the job."""
        words = shlex.split(argv) if isinstance(argv, str) else list(argv)
        return self.box.run(["srun", *words], env=self.environ, **more)  # type: ignore[arg-type]

    def start(self, argv: str | Sequence[str], **more: object) -> subprocess.Popen[str]:
        """Start srun with these words inside the job."""
        words = shlex.split(argv) if isinstance(argv, str) else list(argv)
        return self.box.start(["srun", *words], env=self.environ, **more)

    def vm(self, command: str | Sequence[str], vms: str = "vm0", **more: object) -> str:
        """Run a command, a shell's when it is one string, in VMs; it must succeed; return its output."""
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        return self.srun([f"--pcocc-vm={vms}", *words], status=0, **more).stdout.rstrip("\n")

    def steps(self) -> dict[str, str]:
        """Return the job's steps that run: their names by their ids."""
        lines = self.box.out(["squeue", "-h", "-s", "-j", str(self.job), "-O", "stepid:20,stepname:30"], user="root").splitlines()
        return dict(line.split(maxsplit=1) for line in lines if len(line.split()) == 2)  # type: ignore[misc]

    def boot_step(self) -> str:
        """Return the id of the step that is the VMs."""
        found = [step for step, name in self.steps().items() if name.strip() == "pcocc-vms"]
        assert len(found) == 1, self.steps()
        return found[0]

    def other_step(self, seconds: float = 60) -> str:
        """Wait for a step that is not the VMs' own; return its id, of several steps that of the last."""
        return wait_for(lambda: [step for step, name in self.steps().items() if name.strip() not in ("pcocc-vms", "extern")],
                        "a step", seconds)[-1]

    def qemus(self) -> dict[str, Process]:
        """Return the QEMU of each VM."""
        return self.box.qemus(self.job)

    def node_of(self, vm: str) -> str:
        """Return the node a VM runs on."""
        return self.qemus()[vm].node


@contextmanager
def make_cluster(
    box: Box, *options: str, boot: bool = True, name: str = JOB_NAME, env: dict[str, str] | None = None
) -> Iterator[Cluster]:
    """Allocate a job, boot its VMs, and give it back at the end."""
    path = HOME / f".boottest-{uuid.uuid4().hex}"
    command = f"env -0 >{path}.new; mv {path}.new {path}; exec cat"
    # the last name counts: the shared VMs have one of their own, which the check after each test leaves alone
    holder = box.start(["salloc", f"--job-name={name}", "--quiet", *options, "sh", "-c", command], env=env)
    try:
        wait_for(lambda: path.exists() or holder.poll() is not None, "salloc", 120)
        assert path.exists(), box.finish(holder).stderr
        pairs = (word.partition("=") for word in path.read_text().split("\0") if "=" in word)
        cluster = Cluster(box, {key: value for key, _, value in pairs if key not in ("HOME", "PWD", "_")})
        if boot:
            cluster.srun("--pcocc-vm true", status=0, timeout=180)
        yield cluster
    finally:
        path.unlink(missing_ok=True)
        try:
            done = box.finish(holder, 30)  # closes its input, upon which cat ends
        except subprocess.TimeoutExpired:
            holder.kill()
            done = box.finish(holder, 10)
    assert done.returncode in (0, 1), done.stderr

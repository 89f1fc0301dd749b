"""Slurm's commands: read a job, run its boot step, find and cancel steps."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pcocc_runtime.errors import NodeError
from pcocc_runtime.system import process

BOOT_STEP = "pcocc-vms"
LAUNCH = Path(__file__).resolve().parents[4] / "libexec/pcocc/launch"
_KEPT = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS"}


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A running job as scontrol(1) shows it; of the memories (MiB) one is 0, or both when Slurm limits none."""

    job: int
    nodes: int
    cpus_per_task: int
    memory_per_cpu: int
    memory_per_node: int

    def task_memory(self, tasks: int) -> int:
        """Return the memory of one of `tasks` tasks in MiB, 0 for no limit."""
        return self.memory_per_cpu * self.cpus_per_task or self.memory_per_node // -(-tasks // self.nodes)


def read_job(job: int) -> JobFacts:
    """Return the facts of a job; NodeError when slurmctld does not answer."""
    text = process.run(["scontrol", "show", "job", "--oneliner", str(job)], hint="is slurmctld up? try `scontrol ping`")
    return parse_job(job, text)


def parse_job(job: int, text: str) -> JobFacts:
    """Parse one line of `scontrol show job -o`."""
    fields = dict(re.findall(r"(\S+?)=(\S*)", text))
    try:
        nodes, cpus = int(fields["NumNodes"].partition("-")[0]), int(fields.get("CPUs/Task", "1").replace("N/A", "1"))
    except (KeyError, ValueError):
        raise NodeError(f"scontrol says nothing about the nodes of job {job}", hint=text.strip()[:200]) from None
    return JobFacts(job, nodes, cpus, _mebibytes(fields.get("MinMemoryCPU", "0")), _mebibytes(fields.get("MinMemoryNode", "0")))


def _mebibytes(text: str) -> int:
    number, unit = (text[:-1], text[-1]) if text[-1:] in "KMGT" else (text, "M")
    return int(float(number) * {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}[unit])


def boot_argv(facts: JobFacts, vms: int, sets: str) -> list[str]:
    """Return the srun that boots the cluster: one task one VM, beside the job's other steps.

    A step that names its memory waits for steps that hold it, `--overlap` or not (tried, 22.05); `--mem=0` shares the job's.
    """
    return [
        "srun", f"--jobid={facts.job}", "--overlap", f"--ntasks={vms}", f"--nodes={facts.nodes}",
        "--distribution=block", f"--cpus-per-task={facts.cpus_per_task}", "--mem=0", f"--job-name={BOOT_STEP}",
        "--input=none", "--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--chdir=/",
        f"--pcocc-boot={sets}", str(LAUNCH),
    ]  # fmt: skip


def start_step(argv: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start an srun of ours, free of what the surrounding step's environment would make of it."""
    return _start(argv, environment, subprocess.PIPE)


def _start(argv: list[str], environment: dict[str, str], output: int) -> subprocess.Popen[bytes]:
    clean = {name: value for name, value in os.environ.items() if name in _KEPT or not _is_slurms(name)}
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**clean, **environment}, cwd="/"
    )


_SPREAD = 'd=/run/pcocc/$1/$2; [ -d ${d%/*} ] || exit 0; mkdir -p $d; printf %s "$3" >$d/ended.new && mv $d/ended.new $d/ended'


def spread_end(job: int, nodes: int, vm: str, reason: str) -> None:
    """Leave word of a VM's end on every node of its job, for the steps that use it from there; waits for nothing."""
    argv = [
        "srun", f"--jobid={job}", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--mem=0",
        "--job-name=pcocc-ended", "--input=none", "--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--chdir=/", "--quiet",
        "sh", "-c", _SPREAD, "sh", str(job), vm, json.dumps({"reason": reason}),
    ]  # fmt: skip
    _start(argv, {}, subprocess.DEVNULL)


def _is_slurms(name: str) -> bool:
    return name.startswith(("SLURM_", "SRUN_", "SBATCH_", "SALLOC_", "PCOCC_", "PMI"))


@dataclass(frozen=True, slots=True)
class Step:
    """A live boot step as `JOB.STEP`, and the srun it belongs to."""

    name: str
    host: str
    pid: int

    def is_of(self, pid: int) -> bool:
        """Tell whether the srun with this pid on this host started the step."""
        return self.pid == pid and self.host.partition(".")[0] == os.uname().nodename.partition(".")[0]


def read_boot_steps(job: int) -> tuple[Step, ...]:
    """Return the live boot steps of a job; none when the job has ended."""
    try:
        return parse_steps(process.run(["scontrol", "--oneliner", "show", "step", str(job)]))
    except NodeError:
        return ()


def parse_steps(text: str) -> tuple[Step, ...]:
    """Parse `scontrol -o show step`."""
    found = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(\S+?)=(\S*)", line))
        host, _, pid = fields.get("SrunHost:Pid", "").partition(":")
        if fields.get("Name") == BOOT_STEP and pid.isdigit():
            found.append(Step(fields["StepId"], host, int(pid)))
    return tuple(found)


def cancel_step_of(job: int, pid: int) -> None:
    """Cancel the boot step that a certain srun of this host started."""
    for step in read_boot_steps(job):
        if step.is_of(pid):
            subprocess.run(["scancel", "--quiet", step.name], check=False, stdin=subprocess.DEVNULL, capture_output=True)

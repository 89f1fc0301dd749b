"""Slurm's commands: read a job, run its boot step, find and cancel steps."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pcocc_runtime.errors import NodeError, RequestError, one_line
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


def boot_argv(facts: JobFacts, vms: int, sets: str, whole_nodes: bool = False) -> list[str]:
    """Return the srun that boots the cluster: one task one VM, beside the job's other steps.

    A step that names no CPUs gets all that the job has on its nodes.
    A step that names its memory waits for steps that hold it, `--overlap` or not (tried, 22.05); `--mem=0` shares the job's.
    """
    cpus = ["--cpu-bind=none"] if whole_nodes else [f"--cpus-per-task={facts.cpus_per_task}"]
    return [
        "srun", f"--jobid={facts.job}", "--overlap", f"--ntasks={vms}", f"--nodes={facts.nodes}",
        "--distribution=block", *cpus, "--mem=0", f"--job-name={BOOT_STEP}",
        "--input=none", "--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--chdir=/",
        f"--pcocc-boot={sets}", str(LAUNCH),
    ]  # fmt: skip


def start_step(argv: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start an srun of ours, free of what the surrounding step's environment would make of it."""
    return _start(argv, environment, subprocess.PIPE)


def _start(argv: list[str], environment: dict[str, str], output: int) -> subprocess.Popen[bytes]:
    env = {**_clean_environment(), **environment}
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd="/")


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _KEPT or not _is_slurms(name)}


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


@dataclass(frozen=True, slots=True)
class Running:
    """A job whose VMs run: whose it is, and the nodes of its boot step, as a count and as Slurm writes a list."""

    job: int
    user: str
    uid: int
    gid: int
    nodes: int
    node_list: str


def read_running(job: str) -> Running:
    """Return what Slurm knows of a job and its boot step; RequestError when there is no such job or no VMs of it run."""
    try:
        shown = process.run(["scontrol", "--oneliner", "show", "job", job])
        steps = process.run(["scontrol", "--oneliner", "show", "step", _field(shown, "JobId", job)])
    except NodeError as error:
        if "Invalid job id" not in error.message:
            raise
        raise RequestError(f"Slurm knows no job {job}, or none that runs", "'squeue' lists those that do") from None
    return parse_running(job, shown, steps)


def parse_running(job: str, shown: str, steps: str) -> Running:
    """Parse `scontrol -o show job` and `show step` of one job."""
    owner = re.search(r"UserId=(\S+)\((\d+)\) GroupId=\S+\((\d+)\)", shown)
    if not owner or shown.strip().count("\n"):
        raise RequestError(f"{job} is not one job", "name the task of an array as JOB_TASK")
    boot = next((line for line in steps.splitlines() if _field(line, "Name") == BOOT_STEP), None)
    if boot is None:
        raise RequestError(f"the VMs of job {job} do not run", "the first 'srun --pcocc-vm' in the job boots them")
    nodes, node_list = _field(boot, "Nodes"), _field(boot, "NodeList")
    if not nodes.isdigit() or not node_list:
        raise NodeError(f"scontrol does not say on which nodes the VMs of job {job} run", hint=boot[:200])
    return Running(int(_field(shown, "JobId")), owner[1], int(owner[2]), int(owner[3]), int(nodes), node_list)


def _field(line: str, name: str, default: str = "") -> str:
    found = re.search(rf"(?:^|\s){name}=(\S*)", line)
    return found[1] if found else default


@dataclass(frozen=True, slots=True)
class Listed:
    """A running job with a boot step, as squeue(1) writes its parts; `used` is the job's time, `label` the array's JOB_TASK."""

    job: int
    label: str
    user: str
    partition: str
    used: str
    name: str
    vms: int
    nodes: str


def list_running(user: str | None) -> tuple[Listed, ...]:
    """Return the jobs whose VMs run, of a user or of all, in the order of their numbers.

    Slurm writes names of jobs and steps as they are, with line ends: `mark`, which nobody knows before, begins each line of its own.
    """
    mark = os.urandom(8).hex()
    argv = ["squeue", "--noheader", "--all", *([f"--user={user}"] if user else [])]
    env = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    jobs = process.run([*argv, "--states=running,suspended", f"--format={mark}|%A|%i|%u|%P|%M|%j"], env=env)
    steps = process.run([*argv, "--steps", f"--format={mark}|%i|%A|%N|%j"], env=env) if jobs.strip() else ""
    return parse_listed(jobs, steps, mark)


def parse_listed(jobs: str, steps: str, mark: str) -> tuple[Listed, ...]:
    """Parse what squeue writes of jobs and of steps; lines of another form are nobody's, and of a name only the first counts."""
    boots: dict[str, tuple[int, str]] = {}
    for label, tasks, nodes in re.findall(rf"(?m)^{mark}\|([^|.\n]+)\.\d+\|(\d+)\|([^|\n]*)\|{BOOT_STEP}$", steps):
        boots.setdefault(label, (int(tasks), one_line(nodes)))
    found = []
    for row in re.findall(rf"(?m)^{mark}\|(\d+)" + r"\|([^|\n]*)" * 4 + r"\|(.*)$", jobs):
        job, label, user, partition, used, name = map(one_line, row)
        if label in boots:
            found.append(Listed(int(job), label, user, partition, used, name, *boots[label]))
    return tuple(sorted(found, key=lambda one: one.job))


def network_argv(running: Running, words: Sequence[str]) -> list[str]:
    """Return the srun of `pcocc network`: one task on each node, which the plugin puts into the job's namespace there.

    Whichever VM a VM step names, the namespace is the job's; vm0 is one that every cluster has. See `network_environment`.
    """
    return [
        "srun", f"--jobid={running.job}", "--overlap", f"--nodes={running.nodes}", f"--nodelist={running.node_list}",
        f"--ntasks={running.nodes}", "--ntasks-per-node=1", "--mem=0", "--time=10", "--job-name=pcocc-network",
        "--input=none", "--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--chdir=/", "--quiet", "--quit-on-interrupt",
        "--pcocc-vm=vm0", *words,
    ]  # fmt: skip


_LOOK_SECONDS = "3"  # that a node has to make the namespace, which takes half a second


def network_environment(running: Running) -> dict[str, str]:
    """Return what makes an srun typed anywhere one inside the job, for srun and for the plugin (spank/client.c).

    A node may have no VM any more, and so no namespace: in a job's first half minute that looks as if it were still to come.
    """
    return {"SLURM_JOB_ID": str(running.job), "SLURM_SPANK_PCOCC_TEMPLATE": "any:1", "SLURM_PCOCC_PATIENCE": _LOOK_SECONDS}


def run_network_step(running: Running, words: Sequence[str]) -> tuple[str, str]:
    """Run `network_argv` as the job's user, who may be another when root asks; return what it wrote to stdout and stderr."""
    env = {**_clean_environment(), **network_environment(running)}
    other: dict[str, Any] = {}
    if os.geteuid() == 0 and running.uid != 0:
        groups = os.getgrouplist(running.user, running.gid)
        other = {"user": running.uid, "group": running.gid, "extra_groups": groups}
        env |= {"USER": running.user, "LOGNAME": running.user, "HOME": "/"}
    done = subprocess.run(
        network_argv(running, words), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=env, cwd="/",
        check=False, **other,
    )  # fmt: skip
    return done.stdout, done.stderr


def read_controller() -> str | None:
    """Return the IPv4 address of the first slurmctld's host, None when it cannot be found out."""
    match = re.search(r"^SlurmctldHost\[0\]\s*=\s*([^(\s]+)(?:\(([^)]+)\))?", process.run(["scontrol", "show", "config"]), re.MULTILINE)
    return resolve(match[2] or match[1]) if match else None


def resolve(name: str) -> str | None:
    """Return the first IPv4 address of a host's name or address."""
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):
        return None


def operation_argv(job: int, vms: str, words: Sequence[str], node: str | None = None) -> list[str]:
    """Return the srun of an operation on VMs (a command that begins with '@'), one task for each; `node` is where."""
    where = [f"--nodelist={node}", "--nodes=1", "--ntasks=1"] if node else []
    return [
        "srun", f"--jobid={job}", "--overlap", "--mem=0", f"--job-name=pcocc-{words[0].lstrip('@')}", *where, "--input=none",
        "--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--quiet", "--quit-on-interrupt", f"--pcocc-vm={vms}", *words,
    ]  # fmt: skip


def _operation_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PCOCC_USER_CONF_DIR",) if name in os.environ}
    return {**_clean_environment(), **kept}


def run_vm_step(argv: list[str]) -> int:
    """Run such an srun with our input and output; return its exit status. What interrupts us reaches it too."""
    try:
        child = subprocess.Popen(argv, env=_operation_environment())
    except OSError as error:
        raise NodeError(f"srun cannot be run here: {error.strerror}") from None
    while True:
        try:
            status = child.wait()
            return status if status >= 0 else 128 - status
        except KeyboardInterrupt:
            continue  # the terminal has told srun too, which ends the step in order


def become_vm_step(argv: list[str]) -> NoReturn:
    """Become such an srun."""
    try:
        os.execvpe(argv[0], argv, _operation_environment())
    except OSError as error:
        raise NodeError(f"srun cannot be run on {os.uname().nodename}: {error.strerror}") from None

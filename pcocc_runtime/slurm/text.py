"""What Slurm's commands print, parsed without running them, so that tests can use samples of each release."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pcocc_runtime.documents.wire import BOOT_STEP
from pcocc_runtime.errors import NodeError, RequestError, one_line


def ensure_job_number(text: str) -> None:
    """Raise RequestError unless a text is the number of a job, of an array's task (5_3), or of a job's part (5+1)."""
    if not re.fullmatch(r"0*[1-9][0-9]{0,9}([_+][0-9]{1,10})?", text):
        hint = "squeue shows the numbers; a task of a job array is JOB_TASK, a part of a heterogeneous job JOB+PART"
        raise RequestError(f"{text!r} is not the number of a job", hint)


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A running job as scontrol(1) shows it, memory in MiB.

    Slurm limits memory by CPU or by node, and the other is 0; both are 0 when it does not limit memory.
    `array_task` is None for a job that is not a task of an array. It has been requeued `restarts` times.
    """

    job: int
    nodes: int
    cpus_per_task: int
    memory_per_cpu: int
    memory_per_node: int
    array_task: int | None = None
    restarts: int = 0

    def task_memory(self, tasks: int) -> int:
        """Return the memory of one of `tasks` tasks in MiB, 0 for no limit."""
        return self.memory_per_cpu * self.cpus_per_task or self.memory_per_node // -(-tasks // self.nodes)


def parse_job(job: int, text: str) -> JobFacts:
    """Parse `scontrol show job -o`, which shows all tasks of an array for the one whose job number is the array's."""
    line = next((one for one in text.splitlines() if field_of(one, "JobId") == str(job)), text)
    fields = dict(re.findall(r"(\S+?)=(\S*)", line))
    try:
        nodes = int(fields["NumNodes"].partition("-")[0])
        cpus = int(fields.get("CPUs/Task", "1").replace("N/A", "1"))
    except (KeyError, ValueError):
        raise NodeError(f"scontrol says nothing about the nodes of job {job}", hint=text.strip()[:200]) from None
    task = fields.get("ArrayTaskId", "")
    by_cpu, by_node = (mebibytes(fields.get(name, "0")) for name in ("MinMemoryCPU", "MinMemoryNode"))
    restarts = int(fields.get("Restarts", "0"))
    return JobFacts(job, nodes, cpus, by_cpu, by_node, int(task) if task.isdecimal() else None, restarts)


@dataclass(frozen=True, slots=True)
class JobEnd:
    """Whether a job runs, when Slurm will end it (seconds of the epoch, None: never), and whether to make way."""

    runs: bool
    at: int | None
    preempted: bool


def parse_job_end(text: str) -> JobEnd:
    """Parse `scontrol show job -o` with times as seconds of the epoch (SLURM_TIME_FORMAT=%s)."""
    at = field_of(text, "EndTime")
    state, preempted = field_of(text, "JobState"), field_of(text, "PreemptTime")
    return JobEnd(state == "RUNNING", int(at) if at.isdecimal() else None, preempted.isdecimal())


def mebibytes(text: str) -> int:
    """Return a memory as Slurm writes it (512M, 1.5G) in MiB."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in "KMGT" else (text, "M")
    return int(float(number) * {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}[unit])


@dataclass(frozen=True, slots=True)
class Step:
    """A running boot step as `JOB.STEP`, the srun that started it, and its nodes as Slurm writes a list."""

    name: str
    host: str
    pid: int
    nodes: str = ""

    def is_of(self, pid: int, host: str) -> bool:
        """Tell whether the srun with this pid on this host, whose name may have a domain, started the step."""
        return self.pid == pid and self.host.partition(".")[0] == host.partition(".")[0]


def parse_steps(text: str) -> tuple[Step, ...]:
    """Parse `scontrol -o show step`."""
    found = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(\S+?)=(\S*)", line))
        host, _, pid = fields.get("SrunHost:Pid", "").partition(":")
        if fields.get("Name") == BOOT_STEP and pid.isdecimal() and len(pid) < 10:
            found.append(Step(fields["StepId"], host, int(pid), fields.get("NodeList", "")))
    return tuple(found)


def parse_presence(output: str, complaints: str) -> bool | None:
    """Tell from the output of `sstat --pidformat` whether a step runs on all its nodes; None when it does not say.

    It writes a line for each node, but nothing at all when one of them does not know the step.
    """
    if re.search(r"(?m)^[^|\n]+\|[^|\n]+\|", output):
        return True
    return None if complaints.strip() else False


@dataclass(frozen=True, slots=True)
class Killed:
    """Tasks on a node, such as 0,2-3, that were killed."""

    node: str
    tasks: str


# what Slurm says when a step ends with its job, as every boot step does
_STEP_ENDS = re.compile(r"error: \*\*\* STEP |srun: Job step aborted|srun: forcing job termination")
_TASK_KILLED = re.compile(r"srun: error: (\S+): tasks? ([0-9,-]+): Killed")
# what it says of a task or node that failed before it had a VM
_LOST = re.compile(
    r"srun: error: (\S+: tasks? [0-9,-]+: |Task launch|Application launch|Unable to create step|Node failure)"
)
_ROUTINE = re.compile(
    r"\S+: terminating on signal 15 |srun: (Force Terminated|Complete|error: .*: (Terminated|Exited with exit"
    r" code \d+))"
)


def parse_killed(line: str) -> Killed | None:
    """Return the tasks that a line of srun's stderr says were killed, None when it says something else."""
    killed = _TASK_KILLED.match(line)
    return Killed(killed[1], killed[2]) if killed else None


def is_step_end(line: str) -> bool:
    """Tell whether a line of srun's stderr says that somebody has ended the step."""
    return _STEP_ENDS.search(line) is not None


def is_loss(line: str) -> bool:
    """Tell whether a line of srun's stderr says that a task has ended, or that a node could not begin the step."""
    return _LOST.match(line) is not None


def is_routine(line: str) -> bool:
    """Tell whether a line of srun's stderr is what VMs that end normally cause."""
    return is_step_end(line) or _ROUTINE.match(line) is not None


def is_told_already(line: str) -> bool:
    """Tell whether a line of srun's stderr only says that a task has failed: an operation has told why before."""
    return re.match(r"srun: error: \S+: tasks? [0-9,-]+: Exited with exit code \d+\s*$", line) is not None


def is_unknown(complaint: str) -> bool:
    """Tell whether scontrol complains that slurmctld does not know a job, or no more, or that a job has no steps."""
    return re.search(r"Invalid job id|Job step \S+ not found", complaint) is not None


def is_without_accounting(complaint: str) -> bool:
    """Tell whether sacct complains that the site's Slurm keeps no accounting."""
    return "accounting storage is disabled" in complaint


def find_nodes_without(program: str, lines: Sequence[str]) -> set[str] | None:
    """Return the nodes, if known, where slurmstepd's and srun's lines say a program is missing; None if none do.

    The exit status of a task that could not be executed is its errno (2 is ENOENT).
    """
    missing = f"execve(): {program}: No such file or directory"
    if not any(missing in line for line in lines):
        return None
    started = re.compile(r"srun: error: (\S+): tasks? [0-9,-]+: Exited with exit code 2$")
    return {match[1] for line in lines if (match := started.match(line))}


@dataclass(frozen=True, slots=True)
class Running:
    """A job whose VMs run: its owner, the nodes of its boot step, as a count and as Slurm writes a list, and its VMs.

    `boot` tells this boot step from every other, also from one that the same job had before it was requeued.
    """

    job: int
    user: str
    uid: int
    gid: int
    nodes: int
    node_list: str
    state: str = field(default="RUNNING", compare=False)
    boot: str = field(default="", compare=False)
    tasks: int = field(default=0, compare=False)


_WAITS = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
_RUNS = {"RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING"}


def _not_running(job: str, state: str) -> RequestError:
    if state in _WAITS:
        return RequestError(f"job {job} has not started yet", f"'squeue --start -j {job}' says when it is expected to")
    if state and state not in _RUNS:
        return RequestError(f"job {job} has ended ({state.lower()})", "'pcocc ps' lists your running virtual clusters")
    return RequestError(f"the VMs of job {job} are not running", "the first 'srun --pcocc-vm' in the job boots them")


def find_own_line(job: str, shown: str) -> str:
    """Return what scontrol shows of this job alone: an array, and one of its tasks, have the same number."""
    lines = [one for one in shown.splitlines() if field_of(one, "JobId") == job.lstrip("0")]
    return next((one for one in lines if field_of(one, "JobState") in _RUNS), shown)


def parse_running(job: str, shown: str, steps: str) -> Running:
    """Parse `scontrol -o show job` and `show step` of one job."""
    owner = re.search(r"UserId=(\S+)\((\d+)\) GroupId=\S+\((\d+)\)", shown)
    if not owner or shown.strip().count("\n"):
        raise RequestError(f"{job} is not a single job", "write a task of an array as JOB_TASK, a part as JOB+PART")
    boot = next((line for line in steps.splitlines() if field_of(line, "Name") == BOOT_STEP), None)
    state = field_of(shown, "JobState")
    if boot is None:
        raise _not_running(job, state)
    nodes, node_list = field_of(boot, "Nodes"), field_of(boot, "NodeList")
    if not nodes.isdigit() or not node_list:
        raise NodeError(f"scontrol does not say on which nodes the VMs of job {job} run", hint=boot[:200])
    begun = re.sub("[^0-9]", "", field_of(boot, "StartTime"))
    return Running(
        int(field_of(shown, "JobId")), owner[1], int(owner[2]), int(owner[3]), int(nodes), node_list, state,
        f"{field_of(boot, 'StepId')}-{begun}", int(field_of(boot, "Tasks", "0")),
    )


def field_of(line: str, name: str, default: str = "") -> str:
    """Return the value of NAME=VALUE in a line of scontrol."""
    found = re.search(rf"(?:^|\s){name}=(\S*)", line)
    return found[1] if found else default


@dataclass(frozen=True, slots=True)
class Listed:
    """A running job with a boot step, as squeue(1) shows it; `used`: its run time, `label`: JOB_TASK for an array's."""

    job: int
    label: str
    user: str
    partition: str
    used: str
    name: str
    vms: int
    nodes: str


def parse_listed(jobs: str, steps: str, mark: str) -> tuple[Listed, ...]:
    """Parse squeue's lines of jobs and steps; one without `mark` continues a name, and is left out."""
    boots: dict[str, tuple[int, str]] = {}
    for label, tasks, nodes in re.findall(rf"(?m)^{mark}\|([^|.\n]+)\.\d+\|(\d+)\|([^|\n]*)\|{BOOT_STEP}$", steps):
        boots.setdefault(label, (int(tasks), one_line(nodes)))
    found = []
    for row in re.findall(rf"(?m)^{mark}\|(\d+)" + r"\|([^|\n]*)" * 4 + r"\|(.*)$", jobs):
        job, label, user, partition, used, name = map(one_line, row)
        if label in boots:
            found.append(Listed(int(job), label, user, partition, used, name, *boots[label]))
    return tuple(sorted(found, key=lambda one: one.job))


def parse_slurmd_version(shown: str) -> str | None:
    """Return the release in what `scontrol show slurmd` prints, None when it names none."""
    found = re.search(r"(?m)^Version\s*=\s*(\S+)", shown)
    return found[1] if found else None


def parse_configuration(text: str) -> dict[str, str]:
    """Return the settings that `scontrol show config` prints, by their names; what is not set is empty."""
    pairs = re.findall(r"(?m)^(\w[\w\[\]]*)[ \t]*=[ \t]*(.*?)[ \t]*$", text)
    return {name: "" if value in ("(null)", "N/A", "n/a") else value for name, value in pairs}


def find_controller(settings: Mapping[str, str]) -> str | None:
    """Return the address, or else the name, of the host of the first slurmctld."""
    match = re.match(r"([^(\s]+)(?:\(([^)]+)\))?", settings.get("SlurmctldHost[0]", ""))
    return match and (match[2] or match[1])


def find_launch_seconds(settings: Mapping[str, str]) -> float:
    """Return how long an srun waits for its nodes to begin a step, prolog included."""
    return float(sum(parse_seconds(settings, name) or 0 for name in ("BatchStartTimeout", "MessageTimeout")))


def parse_licences(text: str) -> dict[str, int]:
    """Return each licence of slurm.conf's Licenses with its number, from a text such as `matlab:10,pkey2000`."""
    pairs = (part.strip().replace("*", ":").partition(":") for part in re.split("[,;]", text) if part.strip())
    return {name: int(count) if count.isdecimal() else 1 for name, _, count in pairs}


def parse_moment(text: str) -> str | None:
    """Return when slurmctld wrote its settings by its own clock, as YYYY-MM-DDTHH:MM:SS in the local time zone."""
    found = re.search(r"(?m)^Configuration data as of (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)$", text)
    return found[1] if found else None


def parse_seconds(settings: Mapping[str, str], name: str) -> int | None:
    """Return a setting that is a number of seconds, as in `30 sec`."""
    found = re.match(r"\d+", settings.get(name, ""))
    return int(found[0]) if found else None


class Place(NamedTuple):
    """A node and a partition that it is in."""

    node: str
    partition: str


def parse_places(text: str) -> list[Place]:
    """Parse the lines `NODE PARTITION` of sinfo(1); each node counts once, with its first partition."""
    found: dict[str, Place] = {}
    for line in text.splitlines():
        node, _, partition = line.strip().partition(" ")
        if node:
            found.setdefault(node, Place(node, partition.strip().rstrip("*")))
    return list(found.values())


def parse_release(text: str) -> tuple[int, int] | None:
    """Return a release's year and month from a text such as `slurm 22.05.8`: a plugin is built for one of them."""
    found = re.search(r"\b(\d\d)\.(\d\d)\b", text)
    return (int(found[1]), int(found[2])) if found else None


# the name comes last: a step may have any
SACCT_FIELDS = (
    "JobID", "NTasks", "Elapsed", "TotalCPU", "AveCPU", "MinCPU", "MinCPUTask", "AveRSS", "MaxRSS",
    "MaxRSSTask", "State", "JobName",
)  # fmt: skip
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIME = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class VmsUsage:
    """What the VMs of one boot of a job have used: times in seconds, memory in bytes; None where Slurm says nothing.

    A VM is a task, and Slurm keeps means and extremes of tasks: `least_cpu` and `most_memory` are a value and
    the rank of the VM that it is of.
    """

    job: str
    vms: int
    elapsed: int | None
    cpu: int | None
    mean_cpu: int | None
    least_cpu: tuple[int, int] | None
    mean_memory: int | None
    most_memory: tuple[int, int] | None
    state: str


def parse_usage(text: str) -> tuple[VmsUsage, ...]:
    """Parse sacct's lines of these fields; lines of other steps, and lines of names with line ends, are left out."""
    found = []
    for line in text.splitlines():
        words = line.split("|", len(SACCT_FIELDS) - 1)
        if len(words) == len(SACCT_FIELDS) and words[-1] == BOOT_STEP and re.fullmatch(r"\d+(_\d+)?\.\d+", words[0]):
            found.append(_parse(dict(zip(SACCT_FIELDS, words, strict=True))))
    return tuple(found)


def _parse(fields: dict[str, str]) -> VmsUsage:
    tasks = fields["NTasks"]
    return VmsUsage(
        fields["JobID"].partition(".")[0], int(tasks) if tasks.isdecimal() else 0,
        parse_used_time(fields["Elapsed"]), parse_used_time(fields["TotalCPU"]), parse_used_time(fields["AveCPU"]),
        _of_task(parse_used_time(fields["MinCPU"]), fields["MinCPUTask"]),
        parse_used_memory(fields["AveRSS"]), _of_task(parse_used_memory(fields["MaxRSS"]), fields["MaxRSSTask"]),
        one_line(fields["State"]),
    )


def _of_task(value: int | None, task: str) -> tuple[int, int] | None:
    return (value, int(task)) if value is not None and task.isascii() and task.isdecimal() else None


def parse_used_time(text: str) -> int | None:
    """Return a time as Slurm writes it ([DAYS-]HH:MM:SS, or MM:SS.mmm) in seconds, None for any other text."""
    found = _TIME.fullmatch(text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(word or 0) for word in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_used_memory(text: str) -> int | None:
    """Return a size as sacct writes it (1234K, 1.50G, or bytes) in bytes, None for any other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    return int(float(found[1]) * _UNITS[found[2]]) if found else None

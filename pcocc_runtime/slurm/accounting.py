"""What sacct(1) has recorded of the steps that were a job's VMs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pcocc_runtime.documents.wire import BOOT_STEP
from pcocc_runtime.errors import one_line

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
        fields["JobID"].partition(".")[0],
        int(tasks) if tasks.isdecimal() else 0,
        parse_used_time(fields["Elapsed"]),
        parse_used_time(fields["TotalCPU"]),
        parse_used_time(fields["AveCPU"]),
        _of_task(parse_used_time(fields["MinCPU"]), fields["MinCPUTask"]),
        parse_used_memory(fields["AveRSS"]),
        _of_task(parse_used_memory(fields["MaxRSS"]), fields["MaxRSSTask"]),
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

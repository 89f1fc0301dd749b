"""Slurm's commands: read a job, run its boot step, find and cancel steps."""

from __future__ import annotations

import os
import socket
import subprocess

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.slurm.text import (
    SACCT_FIELDS,
    JobEnd,
    JobFacts,
    Listed,
    Place,
    Running,
    Step,
    VmsUsage,
    ensure_job_number,
    field_of,
    find_controller,
    find_launch_seconds,
    find_own_line,
    is_unknown,
    is_without_accounting,
    parse_configuration,
    parse_job,
    parse_job_end,
    parse_listed,
    parse_places,
    parse_presence,
    parse_running,
    parse_slurmd_version,
    parse_steps,
    parse_usage,
)
from pcocc_runtime.system import process


def read_job(job: int) -> JobFacts:
    """Return the facts of a job; NodeError when slurmctld does not answer."""
    text = process.run(
        ["scontrol", "show", "job", "--oneliner", str(job)], hint="is slurmctld up? try `scontrol ping`"
    )
    return parse_job(job, text)


def read_job_end(job: int) -> JobEnd:
    """Return when a job will end; NodeError when slurmctld does not answer, or knows it no more."""
    argv, env = ["scontrol", "show", "job", "--oneliner", str(job)], {**os.environ, "SLURM_TIME_FORMAT": "%s"}
    return parse_job_end(process.run(argv, env=env))


def read_boot_steps(job: int) -> tuple[Step, ...]:
    """Return the running boot steps of a job; none when the job has ended."""
    try:
        return parse_steps(process.run(["scontrol", "--oneliner", "show", "step", str(job)]))
    except NodeError:
        return ()


def is_step_whole(job: int, step: Step) -> bool | None:
    """Tell whether a step of the caller's job has its slurmstepd on all its nodes, None when Slurm does not say."""
    argv = [
        "sstat", "--noheader", "--parsable2", "--pidformat", f"--jobs={job}.{step.name.rpartition('.')[2]}",
    ]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_presence(done.stdout, done.stderr)


def list_nodes(text: str) -> list[str]:
    """Return the names in a list of nodes such as n[1-3]."""
    return process.run(["scontrol", "show", "hostnames", text]).split()


def read_launch_seconds() -> float:
    """Return how long an srun waits for its nodes to begin with a step."""
    return find_launch_seconds(parse_configuration(process.run(["scontrol", "show", "config"])))


def cancel_step_of(job: int, pid: int) -> None:
    """Cancel the boot step that the srun with this pid on this host started."""
    for step in read_boot_steps(job):
        if step.is_of(pid, os.uname().nodename):
            subprocess.run(
                ["scancel", "--quiet", step.name], check=False, stdin=subprocess.DEVNULL, capture_output=True
            )


def cancel_job(job: int) -> None:
    """Cancel a job of the caller's."""
    process.run(["scancel", str(job)])


def read_running(job: str) -> Running:
    """Return what Slurm knows of a job and its boot step; RequestError if there is no such job, or no running VM."""
    try:
        shown = find_own_line(job, process.run(["scontrol", "--oneliner", "show", "job", job]))
    except NodeError as error:
        if not is_unknown(error.message):
            raise
        raise RequestError(f"Slurm knows no running job {job}", "'squeue' lists the jobs that run") from None
    return parse_running(job, shown, _show_steps(field_of(shown, "JobId", job)))


def _show_steps(job: str) -> str:
    """Return what scontrol shows of a job's steps: nothing for one that waits, or has begun none."""
    try:
        return process.run(["scontrol", "--oneliner", "show", "step", job])
    except NodeError as error:
        if not is_unknown(error.message):
            raise
        return ""


def list_running(user: str | None) -> tuple[Listed, ...]:
    """Return the jobs whose VMs run, of a user or of all, in the order of their numbers.

    Slurm writes the names of jobs and steps as they are, line ends included: a random `mark` begins each line
    that is not part of a name.
    """
    mark = os.urandom(8).hex()
    argv = ["squeue", "--noheader", "--all", *([f"--user={user}"] if user else [])]
    env = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    jobs = process.run([*argv, "--states=running,suspended", f"--format={mark}|%A|%i|%u|%P|%M|%j"], env=env)
    steps = process.run([*argv, "--steps", f"--format={mark}|%i|%A|%N|%j"], env=env) if jobs.strip() else ""
    return parse_listed(jobs, steps, mark)


def read_controller() -> str | None:
    """Return the IPv4 address of the first slurmctld's host, None when it cannot be found out."""
    host = find_controller(parse_configuration(process.run(["scontrol", "show", "config"])))
    return resolve_host(host) if host else None


def resolve_host(name: str) -> str | None:
    """Return the first IPv4 address of a host's name or address."""
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):
        return None


def read_settings() -> str:
    """Return slurmctld's settings as text, for text.py to parse; NodeError when it does not answer."""
    return process.run(["scontrol", "show", "config"], hint="is slurmctld up? try `scontrol ping`")


def list_places() -> list[Place]:
    """Return the nodes of all partitions, each node once; NodeError when slurmctld does not answer."""
    shown = process.run(
        ["sinfo", "--noheader", "--all", "--Node", "--format=%N %P"],
        hint="is slurmctld up? try `scontrol ping`",
    )
    return parse_places(shown)


def read_slurmd_version() -> str | None:
    """Return the release of the slurmd that runs on this node, None when it does not answer."""
    try:
        shown = process.run(["scontrol", "show", "slurmd"])
    except NodeError:
        return None
    return parse_slurmd_version(shown)


def read_usage_of(job: str) -> tuple[VmsUsage, ...]:
    """Return what each boot of a job's VMs has used; RequestError when Slurm has recorded none."""
    ensure_job_number(job)
    argv = ["sacct", "--noheader", "--parsable2", "--duplicates", f"--jobs={job}"]
    try:
        found = parse_usage(process.run([*argv, f"--format={','.join(SACCT_FIELDS)}"], hint="is slurmdbd up?"))
    except NodeError as error:
        if not is_without_accounting(error.message):
            raise
        raise RequestError(
            "this site's Slurm keeps no accounting, which tells what VMs have used (AccountingStorageType)",
            "'pcocc top' and 'pcocc ps -l' show what they use while they run",
        ) from None
    if not found:
        raise RequestError(
            f"Slurm's accounting has no VMs of job {job}",
            f"see 'sacct -j {job}': a site may show jobs to their owners only, and a job may have booted no VM",
        )
    return found

"""The cgroup of a Slurm step, from /proc/PID/cgroup of one of its processes (cgroups(7))."""

import re


def parse_step_group(text: str, job: int, step: int) -> str | None:
    """Return the path of a step's cgroup, None when there is none.

    With cgroup v2 that is SCOPE/job_J/step_S, or SCOPE/SLUID/step_S from 26.05 on; with v1
    /slurm/uid_U/job_J/step_S, and a slurmstepd is only in job_J until its tasks begin.
    """
    found = re.search(rf"(?m)^\d+:[^:]*:(/.*)/(?:(?P<step>step_{step})|job_{job})(?:/|$)", text)
    return found and (f"{found[1]}/step_{step}" if found["step"] else f"{found[1]}/job_{job}/step_{step}")

"""Where a step of Slurm's is among the cgroups, as /proc/PID/cgroup of its processes tells (cgroups(7))."""

import re


def parse_step_group(text: str, step: int) -> str | None:
    """Return the path of a step's cgroup, None when there is none.

    With cgroup v1 that is /slurm/uid_U/job_J/step_S; with v2 SCOPE/job_J/step_S, or SCOPE/SLUID/step_S from 26.05 on.
    """
    found = re.search(rf"(?m)^\d+:[^:]*:(/.*/step_{step})(?:/|$)", text)
    return found[1] if found else None

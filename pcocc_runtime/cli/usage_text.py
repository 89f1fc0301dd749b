"""What the VMs of a job have used, as `pcocc usage` shows it."""

from __future__ import annotations

from collections.abc import Sequence

from pcocc_runtime.slurm.text import VmsUsage
from pcocc_runtime.tables import columns


def render_usage(every: Sequence[VmsUsage]) -> str:
    """Return a line for each boot: of its VMs in the mean, and of the one with least CPU or most memory."""
    rows = [("JOB", "VMS", "TIME", "CPU", "CPU/VM", "LEAST", "MEMORY/VM", "MOST", "STATE")]
    for one in every:
        least, most = one.least_cpu, one.most_memory
        rows.append((
            one.job, str(one.vms), _time(one.elapsed), _time(one.cpu), _time(one.mean_cpu),
            f"{_time(least[0])} vm{least[1]}" if least else "-", _size(one.mean_memory),
            f"{_size(most[0])} vm{most[1]}" if most else "-", one.state,
        ))  # fmt: skip
    return columns(rows)


def _time(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _size(size: int | None) -> str:
    return "-" if size is None else f"{size >> 20}M"

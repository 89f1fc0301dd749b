"""How much memory a virtual cluster takes beside its QEMUs, from /proc/PID/smaps_rollup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.boot.box import Box

# what runs for a job: on each of its nodes; and once, beside the srun that booted it
KINDS = {
    "keeper": r"libexec/pcocc/keeper ",
    "ssh": r"^ssh .*ControlMaster=yes",
    "dnsmasq": r"^dnsmasq ",
    "slurmstepd": r"^slurmstepd: \[\d+\.\d+\]",
    "launcher": r"libexec/pcocc/launch",
    "helper": r"libexec/pcocc/node",
    "attach": r"libexec/pcocc/attach",
    "starter": r"libexec/pcocc/boot \d+",
    "its srun": r"srun .*--pcocc-boot=",
}
ONCE_A_JOB = ("starter", "its srun")


@dataclass(frozen=True)
class Resident:
    """MiB of some processes: RSS counts shared pages in full in each, PSS by share."""

    count: int
    rss: float
    pss: float


def read(box: Box, qemus: bool = False) -> dict[str, Resident]:
    """Return what is resident now, by kind; the box runs only the bench's job."""
    patterns = {**KINDS, "QEMU": r"qemu-system-\S+ -name guest="} if qemus else KINDS
    found: dict[str, list[tuple[float, float]]] = {}
    for process in box.processes("."):
        kind = next((name for name, pattern in patterns.items() if re.search(pattern, process.words)), None)
        for sizes in _sizes(process.pid) if kind else ():
            found.setdefault(str(kind), []).append(sizes)
    return {kind: Resident(len(every), sum(r for r, _p in every), sum(p for _r, p in every)) for kind, every in found.items()}


def _sizes(pid: int) -> Iterator[tuple[float, float]]:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return  # it has ended
    sizes = dict(re.findall(r"(?m)^(Rss|Pss): +(\d+) kB", text))
    if sizes:
        yield int(sizes["Rss"]) / 1024, int(sizes["Pss"]) / 1024

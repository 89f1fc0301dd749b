"""What came of the faults: kept from run to run, and written into docs/faults.md."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Iterable
from typing import Any

from tests.boot.box import ROOT
from tests.faults.table import FAULTS, Fault

KEPT, PAGE = ROOT / "build/faults.json", ROOT / "docs/faults.md"
HEAD = """# What may break, and what holds even then

`make faults` causes each of these faults a hundred times in jobs with VMs on the box (two nodes of a Slurm cluster on
one machine, a guest that boots in seconds), which takes some nights. `build/venv/bin/python -m tests.faults --only
NAME --times N` causes one. `tests/faults/table.py` says how, and what must be true at once; `told` means that the
user's terminal names the fault. After each time nothing of a job may be left on any node, no node may be drained or
down, and a later job with VMs on both nodes must work.

The command writes this page. `times` counts the runs since the fault last changed, `well` those that ended as they
must; `seconds` is the longest that one took, with its job and the check of the box afterwards; `Slurm` has the releases
that it ran with (another than the machine's: `tests/release trixie --run build/venv/bin/python -m tests.faults`).

"""


def read() -> dict[str, dict[str, Any]]:
    """Return what is known of each fault: what this checkout keeps, else what the page says."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(KEPT.read_text())
        return found
    except FileNotFoundError:
        return parse(PAGE.read_text() if PAGE.exists() else "")


def parse(page: str) -> dict[str, dict[str, Any]]:
    """Return what the page says: a new checkout has nothing else, and would write a page without the runs of others."""
    wrong = dict(re.findall(r"(?m)^- `([\w-]+)`: (.*)$", page))
    rows = re.findall(r"(?m)^\| `([\w-]+)`: .* \| (\d+) \| (\d+) \| (\d+) \| ([\d., ]+) \|$", page)
    return {
        name: {
            "times": int(times), "well": int(well), "seconds": int(seconds), "slurm": slurm.split(", "),
            "problem": wrong.get(name, ""),
        }
        for name, times, well, seconds, slurm in rows
    }  # fmt: skip


def read_slurm() -> str:
    """Return the release of Slurm that is installed, such as `24.11.5`."""
    done = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def forget(names: Iterable[str]) -> None:
    """Forget the results of these faults."""
    KEPT.write_text(json.dumps({name: one for name, one in read().items() if name not in set(names)}))


def add(one: Fault, seconds: float, problem: str) -> None:
    """Add a run of a fault, and write the page."""
    known = read()
    before = known.get(one.name, {"times": 0, "well": 0, "seconds": 0, "slurm": [], "problem": ""})
    known[one.name] = {
        "times": before["times"] + 1, "well": before["well"] + (not problem), "seconds": max(before["seconds"], round(seconds)),
        "slurm": sorted({*before["slurm"], read_slurm()}),
        "problem": problem.splitlines()[0][:200] if problem else before["problem"],
    }  # fmt: skip
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(known, indent=1))
    PAGE.write_text(render(known))


def render(known: dict[str, dict[str, Any]]) -> str:
    """Return the page."""
    rows = ["| fault | when | at once | times | well | seconds | Slurm |", "|---|---|---|---|---|---|---|"]
    for one in FAULTS:
        found = known.get(one.name)
        counts = "0 | - | - | -"
        if found:
            counts = f"{found['times']} | {found['well']} | {found['seconds']} | {', '.join(found['slurm'])}"
        rows.append(f"| `{one.name}`: {one.what} | {one.when} | {one.after} | {counts} |")
    wrong = [f"- `{name}`: {one['problem']}" for name, one in known.items() if one["well"] < one["times"]]
    where = f"Last run on Linux {platform.release().partition('-')[0]}.\n" if known else "None of it has been run yet.\n"
    missing = (
        "\nNot on the box, which has its host's disks: a disk that fails. Its nodes share one clock, the machine's own, and"
        " jump\ntogether: faults of the clock are for a machine that nobody else uses meanwhile.\n"
    )
    return (
        "\n".join([HEAD + where, *rows, *(["", "Not well:", "", *wrong] if wrong else [])]) + "\n" + missing
    )

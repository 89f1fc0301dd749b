"""What a launcher spends on its guest's topology: `python -m tests.bench.topology` prints medians of fresh processes.

They are milliseconds of CPU time, and `least` is the least of all processes together: other work on a core's second
thread doubles the CPU time of both.

`imports` is what a launcher would not import without it; `read`, `plan` and `keep` are the work: for all CPUs of this machine,
and for parts of others, whose files lie in a file system here: to open and read one takes 5 us there and in /sys.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pcocc_runtime.cpulist import render_cpu_list
from tests.machines import MACHINES, write_machine

ROOT = Path(__file__).resolve().parents[2]
RUNS = 25
_CODE = """
import sys, time
sys.path.insert(0, {root!r})
import pcocc_runtime.documents.node, pcocc_runtime.documents.cluster, pcocc_runtime.system.drop, pcocc_runtime.system.process
import pcocc_runtime.qemu.slots, pcocc_runtime.qemu.disks, json
from pcocc_runtime.cpulist import parse_cpu_list
began = time.process_time()
from pcocc_runtime.documents.hardware import VmTopology, encode_topology
from pcocc_runtime.documents.abilities import decode_abilities
from pcocc_runtime.qemu.huge_pages import plan_pages
from pcocc_runtime.qemu.topology import plan_topology
from pcocc_runtime.system.hardware import read_free_pages, read_part
imported = time.process_time()
cpus = parse_cpu_list({cpus!r})
part = read_part(cpus, {system!r}, {proc!r})
read = time.process_time()
found = plan_pages("off", part, plan_topology(part, len(cpus), 0, True, False), 8192, read_free_pages, "t")
planned = time.process_time()
encode_topology(VmTopology(1, "kvm", "host", 0, part, found.topology))
kept = time.process_time()
print(*(1000 * (after - before) for before, after in ((began, imported), (imported, read), (read, planned), (planned, kept))))
"""


def measure(cpus: str, system: str, proc: str) -> list[float]:
    """Return medians of imports, read, plan and keep, the median of all together, and the least of that."""
    code = _CODE.format(root=str(ROOT), cpus=cpus, system=system, proc=proc)
    runs = [
        subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(RUNS)
    ]
    rows = [[float(word) for word in row] for row in runs]
    together = [sum(row) for row in rows]
    return [*(statistics.median(column) for column in zip(*rows, strict=True)), statistics.median(together), min(together)]


def main() -> None:
    """Print a line for each part."""
    print("CPUs                           imports   read   plan   keep together least")
    with tempfile.TemporaryDirectory() as directory:
        places = {name: write_machine(machine, Path(directory, name)) for name, machine in MACHINES.items()}
        here = (render_cpu_list(os.sched_getaffinity(0)), "/sys/devices/system", "/proc")
        parts = {"this machine": here, "epyc-8-nodes, 16 of 256": ("0-7,128-135", *places["epyc-8-nodes"]),
                 "xeon-snc4, 64 of 128": ("0-31,64-95", *places["xeon-snc4"]),
                 "epyc-8-nodes, all 256": ("0-255", *places["epyc-8-nodes"])}  # fmt: skip
        for name, part in parts.items():
            found = measure(*part)
            print(f"{name:<30}", *(f"{one:6.2f}" for one in found), flush=True)


if __name__ == "__main__":
    main()

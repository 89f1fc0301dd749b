"""What QEMU takes beside its guest's memory: `python -m tests.bench.overhead [CPUS...]`, as root.

Guests of a kernel and busybox on a pretended machine of 128 cores, with a raw drive and a directory over virtiofs; each
CPU works, the disk is read, and then /proc tells. Guest memory is a memfd, so that it counts as shared.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path

from pcocc_runtime.documents.cluster import Drive, Group, Mount
from pcocc_runtime.qemu.memory import BASE_OVERHEAD
from tests.bench.pairs import make_disk
from tests.machines import pretend
from tests.qemu.guests import build
from tests.qemu.vm import DATA, ROOT, Vm

CPUS = (1, 4, 16, 64)
WORK = (
    "for i in $(seq {cpus}); do head -c 4000000 /dev/urandom | sha256sum >/dev/null & done; "
    "dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null & wait; echo; echo done"
)


def read_own(pid: int) -> dict[str, int]:
    """Return MiB of a process by kind: anonymous, of files, shared, its page tables, and its threads' number."""
    text = Path(f"/proc/{pid}/status").read_text()
    fields = {key: int(value) for key, value in re.findall(r"(?m)^(\w+):\s+(\d+)", text)}
    kinds = {"anonymous": "RssAnon", "files": "RssFile", "guest": "RssShmem", "page tables": "VmPTE"}
    return {name: fields[key] >> 10 for name, key in kinds.items()} | {"threads": fields["Threads"]}


def measure(data: Path, guest: Path, cpus: int) -> dict[str, int]:
    """Return what the QEMU of a guest of so many CPUs has after all of them have worked."""
    make_disk(data / "drive")
    group = Group("t", 1, cpus=cpus, persistent=(Drive(f"{DATA}/drive", "none", "no"),), mounts=(Mount("d", DATA, "virtiofs"),))
    vm = Vm(data, guest, group, part=pretend(data, "epyc-8-nodes", range(cpus)))
    try:
        vm.boot()
        vm.run(WORK.format(cpus=cpus), 600)
        return read_own(vm.process.pid)
    finally:
        vm.close()


def main() -> None:
    """Print a line for each number of CPUs."""
    parser = argparse.ArgumentParser(description="Measure what QEMU takes beside guest memory.")
    parser.add_argument("cpus", nargs="*", type=int, default=CPUS, help=f"default {CPUS}")
    arguments = parser.parse_args()
    guest = ROOT / "build/guest"
    build("kernel", guest)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    print(f"{version.splitlines()[0]}; planned beside guest memory: {BASE_OVERHEAD}")
    for cpus in arguments.cpus:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
            found = measure(Path(name), guest, cpus)
        own = found["anonymous"] + found["files"] + found["page tables"]
        print(f"{cpus} CPUs: {own} MiB ({', '.join(f'{key} {value}' for key, value in found.items())})", flush=True)


if __name__ == "__main__":
    main()

"""What the VMs of a job on this node use: from /proc, where their QEMUs are processes of the job's user (proc(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pcocc_runtime import naming
from pcocc_runtime.documents.node_answer import Usage

_PROC = "/proc"


def read_usage(job: int, ranks: tuple[int, ...], proc: str = _PROC) -> dict[int, Usage]:
    """Return what each VM of the job that runs here uses, by its rank."""
    wanted = {f"guest=job{job}-{naming.vm_name(rank)}".encode(): rank for rank in ranks}
    found = {}
    for path in Path(proc).iterdir():
        if path.name.isdecimal() and (rank := _find_rank(path, wanted)) is not None:
            try:
                found[rank] = _read(path, proc)
            except (OSError, ValueError, AttributeError):
                continue  # it has ended meanwhile
    return found


def _find_rank(path: Path, wanted: dict[bytes, int]) -> int | None:
    try:
        words = (path / "cmdline").read_bytes().split(b"\0", 3)
    except OSError:
        return None
    return wanted.get(words[2].partition(b",")[0]) if len(words) > 2 and words[1] == b"-name" else None


def _read(path: Path, proc: str) -> Usage:
    tick = os.sysconf("SC_CLK_TCK")
    fields = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()
    cpu = 1000 * (int(fields[11]) + int(fields[12])) // tick  # utime, stime
    uptime = float(Path(proc, "uptime").read_text().split()[0])
    memory = re.search(r"(?m)^VmRSS:\s+(\d+) kB", (path / "status").read_text(errors="replace"))
    assert memory
    since = max(round(1000 * (uptime - int(fields[19]) / tick)), 0)
    words = (path / "cmdline").read_bytes().split(b"\0")
    limit, cpus = _find_number(words, b"-m", rb"size=(\d+)M"), _find_number(words, b"-smp", rb"cpus=(\d+)")
    return Usage(cpu, since, int(memory[1]) * 1024, limit << 20, cpus)


def _find_number(words: list[bytes], option: bytes, form: bytes) -> int:
    """Return a number about the guest from QEMU's command line, 0 if it is not there."""
    found = re.match(form, words[words.index(option) + 1]) if option in words[:-1] else None
    return int(found[1]) if found else 0

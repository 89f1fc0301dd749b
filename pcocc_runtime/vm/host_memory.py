"""How much memory this process may use: the least of its memory cgroups' limits and the node's own."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = "/sys/fs/cgroup"


def read_memory_limit() -> int:
    """Return MiB."""
    files = limit_files(Path("/proc/self/cgroup").read_text())
    limits = [_read_total(), *(limit for file in files if (limit := _read_number(file)) is not None)]
    return min(limits) >> 20


def _read_total() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def limit_files(text: str) -> list[str]:
    """Return the limit files of a process's memory cgroup and all above it; `text`: /proc/PID/cgroup (cgroups(7))."""
    files = []
    for line in text.splitlines():
        _number, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            base, name = (
                (f"{_ROOT}/memory", "memory.limit_in_bytes") if controllers else (_ROOT, "memory.max")
            )
            parts = [part for part in path.split("/") if part]
            files += ["/".join([base, *parts[:depth], name]) for depth in range(len(parts) + 1)]
    return files


def _read_number(file: str) -> int | None:
    try:
        return int(Path(file).read_text())
    except (OSError, ValueError):  # none here, or "max"
        return None

"""The machine's cgroups: one in each hierarchy that this machine has mounted, of either version."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from .suites import ReleaseError

TOP = Path("/sys/fs/cgroup")
_GENERIC = {
    "rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "xattr", "clone_children", "nsdelegate",
    "memory_recursiveprot",
}


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy: where, `cgroup` or `cgroup2`, and the options that mount it again (controllers, or a name)."""

    path: Path
    kind: str
    options: str


def parse_hierarchies(text: str) -> list[Hierarchy]:
    """Return the hierarchies among the lines of /proc/mounts, those below others last."""
    found = []
    for _source, path, kind, options, *_rest in map(str.split, text.splitlines()):
        if kind in ("cgroup", "cgroup2") and Path(path).is_relative_to(TOP):
            own = [word for word in options.split(",") if word not in _GENERIC and not word.startswith("release_agent=")]
            named = any(word.startswith("name=") for word in own)
            found.append(Hierarchy(Path(path), kind, ",".join(["none", *own] if named else own) if kind == "cgroup" else ""))
    return sorted(found, key=lambda one: len(one.path.parts))


def read_hierarchies() -> list[Hierarchy]:
    """Return what is mounted; ReleaseError when that is nothing."""
    found = parse_hierarchies(Path("/proc/self/mounts").read_text())
    if not found:
        raise ReleaseError(f"no cgroups are mounted below {TOP}: the machine's Slurm needs them; mount -t cgroup2 cgroup2 {TOP}")
    return found


def ensure_groups(hierarchies: list[Hierarchy], name: str) -> list[Path]:
    """Make the group of a name in each hierarchy, and return them."""
    groups = [one.path / name for one in hierarchies]
    for group in groups:
        group.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (group / file).exists() and not (group / "cgroup.controllers").exists():  # of v1: empty until written
                (group / file).write_text((group.parent / file).read_text())
    return groups


def remove_groups(hierarchies: list[Hierarchy], name: str) -> None:
    """End whatever runs in the groups of a name, and remove them; ReleaseError when that does not work out."""
    for group in (one.path / name for one in hierarchies):
        end = time.monotonic() + 10
        while group.exists():
            below = [Path(path) for path, _directories, _files in os.walk(group, topdown=False)]
            for one in below:
                _kill_or_remove(one)
            if time.monotonic() > end:
                raise ReleaseError(f"the cgroup {group} of an earlier run cannot be removed: end its processes")
            time.sleep(0.02)  # the kernel needs a moment


def _kill_or_remove(group: Path) -> None:
    """Kill the processes of a group, or remove it when there are none; the kernel needs a moment between the two."""
    try:
        pids = [int(word) for word in (group / "cgroup.procs").read_text().split()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if not pids:
            group.rmdir()
    except (FileNotFoundError, ProcessLookupError):
        pass
    except OSError as error:
        if error.errno not in (16, 19):  # busy, or a group that is going (ENODEV)
            raise

"""What is alive in the box, and what pcocc left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

from boxlib import cluster, state
from boxlib.state import LOGIN, STATE, USERS

_OURS = re.compile(r"qemu-system|dnsmasq|virtiofsd|/pcocc/|pcocc_runtime|pcocc-vm|^ssh |bin/pcocc")
_KEPT = {".state", "accel.json", "abilities.json"}


def find_leftovers(name: str) -> list[str]:
    """Return everything of pcocc on a node or on the login side, one line each."""
    root = Path(f"/proc/{state.holder_of(name)}/root")
    found = [f"process {pid}: {words}" for pid, words in _processes(name)]
    found += [f"file {path}" for path in _entries(root, "/tmp", "pcocc*") if _is_box_users(name, root, path)]
    if name == LOGIN:
        return found
    found += [f"namespace {path.rpartition('/')[2]}" for path in _entries(root, "/run/netns", "*")]
    found += [f"interface {one}" for one in _interfaces(name)]
    found += [f"nft {one}" for one in _tables(name)]
    for directory in ("/run/pcocc", "/run/pcocc/.state", "/var/lib/pcocc/scratch/pcocc", "/var/lib/misc"):
        pattern = "*" if "pcocc" in directory else "*pcocc*"
        found += [f"file {path}" for path in _entries(root, directory, pattern) if path.rpartition("/")[2] not in _KEPT]
    return found


def _processes(name: str) -> list[tuple[int, str]]:
    every = state.processes_of(name)
    return sorted((pid, words) for pid, words in every.items() if _OURS.search(_program(words)) and pid != os.getpid())


def _program(words: str) -> str:
    """Return the part of a command line that tells whose it is, without the arguments of Slurm's own daemons."""
    return "" if re.match(r"\S*(slurmd|slurmctld|munged|slurmstepd)\b|/usr/bin/python3 -IS \S*/holder\.py", words) else words


def _entries(root: Path, directory: str, pattern: str) -> list[str]:
    return sorted(f"{directory}/{path.name}" for path in (root / directory[1:]).glob(pattern))


def _is_box_users(name: str, root: Path, path: str) -> bool:
    """Tell whether a file in /tmp counts: the login side shares the machine's /tmp with others."""
    try:
        return name != LOGIN or (root / path[1:]).lstat().st_uid in USERS.values()
    except FileNotFoundError:
        return False


def _tables(name: str) -> list[str]:
    """Return a node's packet filters of jobs; the guard, `table inet pcocc`, stays."""
    argv = ["nsenter", f"--net=/proc/{state.holder_of(name)}/ns/net", "nft", "list", "tables"]
    return [
        line
        for line in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        if "pcocc-" in line
    ]


def _interfaces(name: str) -> list[str]:
    own = json.loads((STATE / "run" / f"{name}.links").read_text())
    return [one for one in state.read_links(name) if one not in own]



def list_jobs() -> list[str] | None:
    """Return the jobs that are running or ending; None when the controller does not answer."""
    states = "RUNNING,COMPLETING,CONFIGURING,SUSPENDED,STOPPED,SIGNALING,STAGE_OUT"
    done = cluster.run_login("squeue", "--noheader", f"--states={states}", "--format=%A %u %j %T %N")
    return None if done.returncode else done.stdout.split("\n")[:-1]


def wait_clean(seconds: float) -> bool:
    """Wait until no job runs and nothing is left; return whether that came."""
    end = time.monotonic() + seconds
    while True:
        if list_jobs() == [] and not any(find_leftovers(name) for name in _names()):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.1)  # nothing announces that nothing is left


def show() -> bool:
    """Print the state of the box; return whether it is healthy: daemons up, and nothing left unless a job runs."""
    healthy = True
    for name in _names():
        for service in ("munged", "slurmctld") if name == LOGIN else ("slurmd",):
            pid = state.read_pid(f"{name}.{service}")
            print(f"{name}: {service} {pid or 'is not running'}")
            healthy &= pid is not None
    print(cluster.run_login("sinfo", "--Node", "--format=%8N %10T %E").stdout, end="")
    jobs = list_jobs()
    print("jobs: the controller does not answer" if jobs is None else f"jobs: {len(jobs)}", *(jobs or []), sep="\n  ")
    for name in _names():
        for one in find_leftovers(name):
            print(f"{name}: {one}")
            healthy &= bool(jobs)
    return healthy and jobs is not None


def show_processes() -> None:
    """Print every process of the box."""
    for name in _names():
        for pid, words in sorted(state.processes_of(name).items()):
            print(f"{name:6} {pid:>7} {words[:200]}")


def _names() -> list[str]:
    return [LOGIN, *state.node_names(state.read_box()["nodes"])]


def find_processes(name: str, pattern: str) -> dict[int, str]:
    """Return the processes of a node or of the login side whose command line matches a regular expression."""
    return {pid: words for pid, words in state.processes_of(name).items() if re.search(pattern, words) and pid != os.getpid()}

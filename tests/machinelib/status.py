"""What is alive in the machine, and what pcocc left behind."""

from __future__ import annotations

from . import machine, ssh
from .place import HERE, Place

DAEMONS = ("munge", "slurmctld", "slurmd", "pcocc-cache.socket")


def find_leftovers(place: Place) -> list[str]:
    """Return everything of pcocc in the machine, a line each."""
    return ssh.must_run(place, ["bash", "-s"], data=(HERE / "leftovers").read_bytes()).splitlines()


def list_jobs(place: Place) -> list[str]:
    """Return the jobs that are waiting, running or ending."""
    return ssh.must_run(place, ["squeue", "--noheader", "--format=%A %u %j %T %N"]).splitlines()


def show(place: Place) -> bool:
    """Print the state of the machine; return whether it is healthy: daemons up, and nothing left unless a job runs."""
    pid = machine.find_pid(place)
    if pid is None:
        print("the machine is down")
        return False
    print(
        f"process {pid}, {machine.read_resident(pid)} MiB; ssh on port {ssh.read_port(place)}; console in"
        f" {place.running}/console"
    )
    states = ssh.must_run(place, ["sh", "-c", f"systemctl is-active {' '.join(DAEMONS)} || :"]).split()
    for daemon, state in zip(DAEMONS, states, strict=True):
        print(f"{daemon}: {state}")
    print(ssh.must_run(place, ["sinfo", "--Node", "--format=%8N %10T %E"]), end="")
    jobs, left = list_jobs(place), find_leftovers(place)
    print(f"jobs: {len(jobs)}", *jobs, sep="\n  ")
    print(*left, sep="\n", end="\n" if left else "")
    return set(states) == {"active"} and (bool(jobs) or not left)

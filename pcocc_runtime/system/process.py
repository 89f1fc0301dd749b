"""Other processes: run, observed and ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from pcocc_runtime.documents.job_record import ProcessId
from pcocc_runtime.errors import NodeError
from pcocc_runtime.system.cgroups import parse_step_group

PACKAGES = {"bridge": "iproute2", "ip": "iproute2", "nft": "nftables", "tc": "iproute2"}  # those of programs
GONE_SECONDS = 5.0  # killed processes may be in the middle of a write to a slow disk


def run(
    argv: Sequence[str], *, text: str | None = None, timeout: float = 30,
    env: Mapping[str, str] | None = None, hint: str | None = None,
) -> str:
    """Run a program to its end and return its stdout; when it fails, NodeError has what it said."""
    helps = hint or ("ask the admins to look at that node's load and logs" if argv[0] in PACKAGES else None)
    try:
        done = subprocess.run(
            argv, input=text, stdin=subprocess.DEVNULL if text is None else None, capture_output=True, text=True,
            errors="replace", timeout=timeout, env=None if env is None else dict(env), check=False,
        )  # fmt: skip
    except OSError as error:
        raise explain_start(argv, error, hint) from None
    except subprocess.TimeoutExpired:
        raise NodeError(f"{argv[0]} did not end within {timeout:g} s on {os.uname().nodename}", helps) from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise NodeError(f"{argv[0]} failed on {os.uname().nodename}: {said}", helps)
    return done.stdout


def explain_start(argv: Sequence[str], error: OSError, hint: str | None) -> NodeError:
    """Return the error for a program that cannot be started."""
    where = os.uname().nodename
    hint = hint or (f"install the package {PACKAGES[argv[0]]}" if argv[0] in PACKAGES else None)
    if isinstance(error, FileNotFoundError):
        return NodeError(f"the program {argv[0]} is not installed on {where}", hint=hint)
    helps = isinstance(error, PermissionError)
    return NodeError(f"{argv[0]} cannot be run on {where}: {error.strerror}", hint=hint if helps else None)


def read_start_time(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat (proc(5)), or None when there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def find_process(pid: int) -> ProcessId | None:
    """Return the identity of a running process."""
    start = read_start_time(pid)
    return None if start is None else ProcessId(pid, start)


def is_alive(process: ProcessId) -> bool:
    """Tell whether exactly that process still runs."""
    return read_start_time(process.pid) == process.start


def kill(process: ProcessId) -> None:
    """Kill that very process, if it still runs."""
    _with_pidfd(process, lambda pidfd: signal.pidfd_send_signal(pidfd, signal.SIGKILL))


def end(processes: Iterable[ProcessId], seconds: float = GONE_SECONDS) -> None:
    """Kill these processes and wait until they are gone, but not longer: a user can make his hang in the kernel."""
    every, last = list(processes), time.monotonic() + seconds
    for one in every:
        kill(one)
    for one in every:
        _with_pidfd(one, lambda pidfd: select.select([pidfd], [], [], max(0.0, last - time.monotonic())))


def _with_pidfd(process: ProcessId, act: Callable[[int], object]) -> None:
    """Do something to that very process, if it still runs: a pidfd makes sure that it is not another by then."""
    with suppress(OSError):  # it has ended
        pidfd = os.pidfd_open(process.pid)
        try:
            if is_alive(process):
                act(pidfd)
        finally:
            os.close(pidfd)


def find_in_netns(path: PurePath, name: str, owners: Collection[int]) -> list[ProcessId]:
    """Return this host's processes of a name (comm) and of these users in the network namespace mounted at `path`."""
    inside = os.stat(path)

    def is_wanted(text: str, at: str) -> bool:
        return text == f"{name}\n" and os.path.samestat(inside, os.stat(f"{at}/ns/net"))

    return _find("comm", is_wanted, owners)


def find_in_cgroup(part: str, uid: int | None = None) -> list[ProcessId]:
    """Return this host's processes, of a user or of all, with such a `part` in their cgroup's path: /job_7/step_0/."""
    return _find("cgroup", lambda text, at: part in text.replace("\n", "/\n"), None if uid is None else {uid})


def find_slurmstepds(job: int) -> list[ProcessId]:
    """Return root's slurmstepds of a job's steps on this host; they call themselves `slurmstepd: [JOB.STEP]`."""
    return _find("cmdline", lambda text, at: text.startswith(f"slurmstepd: [{job}."), {0})


def _find(file: str, is_wanted: Callable[[str, str], bool], owners: Collection[int] | None) -> list[ProcessId]:
    """Return this host's other processes (in its UTS namespace) that are wanted; `owners` are real uids, or any."""
    found, host = [], os.stat("/proc/self/ns/uts")
    for at in (f"/proc/{name}" for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()):
        try:
            text = Path(at, file).read_text(errors="replace")
            known = is_wanted(text, at) and os.path.samestat(host, os.stat(f"{at}/ns/uts"))
            if known and (owners is None or read_owner(int(at[6:])) in owners):
                found.append(find_process(int(at[6:])))
        except OSError:
            continue
    return [one for one in found if one is not None]


def read_owner(pid: int) -> int:
    """Return the real uid of a process: who started it. /proc/PID itself belongs to the effective one (proc(5))."""
    return int(Path(f"/proc/{pid}/status").read_text(errors="replace").partition("\nUid:")[2].split(maxsplit=1)[0])


def leave_step(job: int, step: int, top: str = "/sys/fs/cgroup") -> None:
    """Leave the step's cgroup, of version 2, for Slurm's own: a job's memory limit would count this process, too."""
    if group := parse_step_group(Path("/proc/self/cgroup").read_text(), job, step):
        with suppress(FileNotFoundError):  # v1: when slurmstepd starts us, it is not in the job's memory cgroup
            Path(f"{top}{PurePath(group).parents[1]}/system/cgroup.procs").write_text("0")

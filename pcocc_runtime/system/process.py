"""The one door to other processes: run, start, observe, end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from pcocc_runtime.errors import NodeError

GONE_SECONDS = 5.0  # killed processes may be in the middle of a write to a slow disk


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, told apart from a later one with the same number by its start time (clock ticks since boot)."""

    pid: int
    start: int


def run(
    argv: Sequence[str], *, text: str | None = None, timeout: float = 30, env: Mapping[str, str] | None = None, hint: str | None = None
) -> str:
    """Run a program to its end and return its stdout; NodeError carries what it said when it fails."""
    try:
        done = subprocess.run(
            argv, input=text, stdin=subprocess.DEVNULL if text is None else None, capture_output=True, text=True, errors="replace",
            timeout=timeout, env=None if env is None else dict(env), check=False,
        )  # fmt: skip
    except OSError as error:
        raise explain_start(argv, error, hint) from None
    except subprocess.TimeoutExpired:
        raise NodeError(f"{argv[0]} did not end within {timeout:g} s on {os.uname().nodename}", hint=hint) from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise NodeError(f"{argv[0]} failed on {os.uname().nodename}: {said}", hint=hint)
    return done.stdout


def explain_start(argv: Sequence[str], error: OSError, hint: str | None) -> NodeError:
    """Return what to tell of a program that cannot be started."""
    where = os.uname().nodename
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
    """Kill that very process, if it still runs: a pidfd pins it between the look and the signal."""
    with _pinned(process) as pidfd:
        if pidfd is not None:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def end(processes: Iterable[ProcessId], seconds: float = GONE_SECONDS) -> None:
    """Kill these processes and see them gone; in one time for all of them, since a user can make his hang in the kernel."""
    every, last = list(processes), time.monotonic() + seconds
    for one in every:
        kill(one)
    for one in every:
        with _pinned(one) as pidfd:
            if pidfd is not None:
                select.select([pidfd], [], [], max(0.0, last - time.monotonic()))


@contextmanager
def _pinned(process: ProcessId) -> Iterator[int | None]:
    """Give a descriptor of that very process, None when it has ended."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        yield None
        return
    try:
        yield pidfd if is_alive(process) else None
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def find_in_netns(path: PurePath, name: str, owners: Collection[int]) -> list[ProcessId]:
    """Return this host's processes of a name, as /proc/PID/comm has it, that are in the network namespace mounted at `path`.

    Only those whose real uid is one of `owners`.
    """
    found = []
    namespace = os.stat(path)
    for entry in os.scandir("/proc"):
        try:
            if not entry.name.isdigit() or Path(entry.path, "comm").read_text() != f"{name}\n":
                continue
            if not os.path.samestat(namespace, os.stat(f"{entry.path}/ns/net")) or read_owner(int(entry.name)) not in owners:
                continue
        except OSError:
            continue
        process = find_process(int(entry.name))
        if process is not None:
            found.append(process)
    return found


def read_owner(pid: int) -> int:
    """Return the real uid of a process: who started it. /proc/PID itself belongs to the effective one (proc(5))."""
    return int(Path(f"/proc/{pid}/status").read_text(errors="replace").partition("\nUid:")[2].split(maxsplit=1)[0])


def find_in_cgroup(part: str, uid: int | None = None) -> list[ProcessId]:
    """Return this host's processes, of a user or of all, whose cgroup path (v1 or v2) contains `part`, such as /job_7/step_0/.

    Several nodes may share a kernel (slurmd -N): a host is told by its UTS namespace.
    """
    found = []
    host = os.readlink("/proc/self/ns/uts")
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if (uid is not None and entry.stat().st_uid not in (uid, 0)) or os.readlink(f"{entry.path}/ns/uts") != host:
                continue
            if not any(part in line + "/" for line in Path(entry.path, "cgroup").read_text().splitlines()):
                continue
            if uid is not None and read_owner(int(entry.name)) != uid:
                continue
        except OSError:
            continue
        process = find_process(int(entry.name))
        if process is not None:
            found.append(process)
    return found

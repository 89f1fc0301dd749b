"""The first process of a node: it prepares the namespaces it was started in, starts the daemons, and reaps orphans.

Started as `python3 -IS holder.py NAME`; SIGUSR1 starts the daemons that are not running, SIGTERM ends it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from boxlib.state import STATE, start_time, write_pid

_PR_SET_CHILD_SUBREAPER = 36
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_SIGNALS = {signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM}


def main() -> None:
    """Hold the namespaces until SIGTERM."""
    name = sys.argv[1]
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    subprocess.run(["/bin/sh", "-ec", _read_spec(name)["script"]], check=True)
    write_pid(name, os.getpid())
    running: dict[str, int] = {}
    wanted: set[str] = set()
    while (number := signal.sigwait(_SIGNALS)) != signal.SIGTERM:
        _reap(running)
        services: dict[str, list[str]] = json.loads(_read_spec(name)["services"])
        if number == signal.SIGUSR1:
            wanted |= set(services)
        # a dying daemon whose first thread has ended is waited for: SIGCHLD comes when its last one has
        dying = {service for service, pid in running.items() if start_time(pid) is None}
        for service in wanted - set(running):
            running[service] = _start(name, service, services[service])
        wanted &= dying


def _read_spec(name: str) -> dict[str, str]:
    spec: dict[str, str] = json.loads((STATE / "run" / f"{name}.spec").read_text())
    return spec


def _reap(running: dict[str, int]) -> None:
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for service in [one for one, known in running.items() if known == pid]:
            del running[service]


def _start(name: str, service: str, argv: list[str]) -> int:
    os.chdir("/")
    log = os.open(STATE / "log" / f"{name}.{service}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    pid = os.posix_spawn(argv[0], argv, _ENVIRONMENT, file_actions=actions, setsid=True, setsigmask=[])
    os.close(log)
    write_pid(f"{name}.{service}", pid)
    return pid


if __name__ == "__main__":
    main()

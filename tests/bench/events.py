"""Which processes start, exec and end on this machine, and exactly when: the kernel's own process events.

From linux/cn_proc.h; root of the first network namespace only. Times are CLOCK_MONOTONIC, as time.monotonic_ns().
"""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

_NETLINK_CONNECTOR, _CN_IDX_PROC, _LISTEN = 11, 1, 1
_FORK, _EXEC, _EXIT = 1, 2, 0x80000000
_EVENT = 36  # after struct nlmsghdr and struct cn_msg
OURS = re.compile(r"libexec/pcocc/")


@dataclass
class Life:
    """One process. Times are monotonic, in ns; `execs` has (time, command line, CPU time used until then, in ns)."""

    pid: int
    parent: int = 0
    forked: int = 0
    ended: int = 0
    execs: list[tuple[int, str, int]] = field(default_factory=list)
    cpu: int = 0  # last seen, for processes of ours only

    def find_exec(self, pattern: str) -> tuple[int, str, int] | None:
        """Return the first exec of a command line that matches."""
        return next((one for one in self.execs if re.search(pattern, one[1])), None)


def read_cpu(pid: int) -> int:
    """Return the CPU ns of a process and of its children that were waited for; 0 when it is gone."""
    try:
        own = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError, IndexError):
        return 0
    return own + (int(fields[13]) + int(fields[14])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ProcessEvents:
    """Records while the `with` block runs."""

    def __enter__(self) -> ProcessEvents:
        self.lives: dict[int, Life] = {}
        self.all: list[Life] = []
        self.lost = False
        self.over = threading.Event()
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((0, _CN_IDX_PROC))
        body = struct.pack("=IIIIHHI", _CN_IDX_PROC, 1, 0, 0, 4, 0, _LISTEN)
        self.socket.send(struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body)
        self.socket.settimeout(0.005)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        self.thread.join()
        self.socket.close()

    def find(self, pattern: str) -> list[Life]:
        """Return the processes that have exec'ed a matching command line."""
        return [life for life in list(self.all) if life.find_exec(pattern)]

    def wait(self, pattern: str, count: int, seconds: float) -> list[Life]:
        """Wait until that many processes have exec'ed a matching command line; return those that did so in time."""
        end = time.monotonic() + seconds
        while len(found := self.find(pattern)) < count and time.monotonic() < end:
            time.sleep(0.02)
        return found

    def below(self, top: Life) -> list[Life]:
        """Return the processes that a process has started, and those they have."""
        known = {top.pid}
        found = []
        for life in self.all:
            if life.parent in known and top.forked <= life.forked and (not top.ended or life.forked <= top.ended):
                known.add(life.pid)
                found.append(life)
        return found

    def _listen(self) -> None:
        sampled = 0
        while not self.over.is_set():
            try:
                self._take(self.socket.recv(4096))
            except TimeoutError:
                pass
            except OSError:
                self.lost = True  # ENOBUFS: the kernel had to drop some
            if time.monotonic_ns() - sampled > 5_000_000:
                self._sample()
                sampled = time.monotonic_ns()

    def _take(self, message: bytes) -> None:
        what, _cpu, stamp, pid, process = struct.unpack_from("=IIQII", message, _EVENT)
        if what == _FORK:
            parent, child, child_process = pid, *struct.unpack_from("=II", message, _EVENT + 24)
            parent = process
            if child == child_process:
                self._add(Life(child, parent, stamp))
        elif what == _EXEC:
            life = self.lives.get(process) or self._add(Life(process))
            try:
                words = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                words = ""
            life.execs.append((stamp, words, read_cpu(process)))
        elif what == _EXIT and pid == process and pid in self.lives:
            life = self.lives.pop(pid)
            life.ended = stamp
            life.cpu = max(life.cpu, read_cpu(pid))

    def _add(self, life: Life) -> Life:
        self.lives[life.pid] = life
        self.all.append(life)
        return life

    def _sample(self) -> None:
        for life in list(self.lives.values()):
            if life.execs and OURS.search(life.execs[-1][1]):
                life.cpu = max(life.cpu, read_cpu(life.pid))

"""Catches processes that live only for a moment: root's helper, launchers, and programs that they start."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.boot.box import ROOT, STATE, Box
from tests.waiting import limit


def find(pattern: str, node: str) -> int | None:
    """Return a process of a node, or of the login side, whose command line matches."""
    holder = (STATE / "run" / node).read_text().split()[0]
    mine = os.readlink(f"/proc/{holder}/ns/uts")
    for name in os.listdir("/proc"):
        try:
            if not name.isdigit() or int(name) == os.getpid() or os.readlink(f"/proc/{name}/ns/uts") != mine:
                continue
            words = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if (
                re.search(pattern, words)
                and b"Z" not in Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2][:3]
            ):
                return int(name)
        except OSError:
            continue
    return None


def kill_when_seen(pattern: str, node: str, seconds: float = 60, number: int = signal.SIGKILL) -> int:
    """Wait for such a process, and send it a signal at once; return which it was."""
    end = time.monotonic() + limit(seconds)
    while (pid := find(pattern, node)) is None:
        assert time.monotonic() < end, f"no process {pattern} on {node}"
        time.sleep(0.002)  # the process is nobody's child here
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return pid


@contextlib.contextmanager
def hunted(pattern: str, node: str) -> Iterator[None]:
    """Have the first such process that starts in the block killed at once; AssertionError when there was none."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(kill_when_seen(pattern, node)), daemon=True)
    thread.start()
    yield
    thread.join(1)
    assert found, f"there was no process {pattern} on {node}"


_TRAP = """
cp {program} {real}; mkdir -p {done}
cat >{real}.sh <<'E'
#!/bin/sh
tr '\\0' ' ' </proc/$PPID/cmdline | grep -q 'libexec/pcocc/node {verb}' && mkdir {done}/once 2>/dev/null && kill -9 $PPID
exec {real} "$@"
E
chmod +x {real}.sh; mount --bind {real}.sh {program}
"""


@contextlib.contextmanager
def helper_killed(box: Box, verb: str, program: str, node: str) -> Iterator[None]:
    """Have root's helper killed in the block, once, when it starts a program."""
    real, done = "/run/fault-program", "/run/fault-done"
    with box.changed(
        _TRAP.format(program=program, real=real, done=done, verb=verb),
        f"umount {program}; rm -rf {real} {real}.sh",
        node,
    ):
        yield
        seen = os.path.exists(box.root(node, f"{done}/once"))
    box.run(["rm", "-rf", done], user="root", node=node)
    assert seen, f"root's helper did not run {program} in its {verb}"


def kill_children(pid: int) -> None:
    """Kill the children of a process, if there are any left."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


def resume(pid: int) -> None:
    """Let a stopped process go on."""
    os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def clock_jumped(seconds: float) -> Iterator[None]:
    """Make the clock of this machine, which all nodes of the box share, jump for the block.

    Everything else here has the wrong time meanwhile, so the block must be short.
    """
    real, begin = time.time(), time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, real + seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, real + time.monotonic() - begin)


def power_off(node: str) -> None:
    """Take a node's power away: all its processes end at once, with its namespaces, and with them what was in memory."""
    sys.path.insert(0, str(ROOT / "tests"))
    from boxlib import nodes

    nodes.remove_node(node)


def power_on() -> None:
    """Start the nodes that are off."""
    done = subprocess.run(
        [ROOT / "tests/box", "up"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

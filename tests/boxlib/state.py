"""Where the box keeps its state, and which processes are its own."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ETC = ROOT / "tests/boxlib/etc"
STATE = Path("/var/lib/pcocc-box")
PREFIX = Path("/opt/pcocc")
LOGIN = "login"
BRIDGE = "pcbox0"
FIRST = "pcocc-box"
GROUP = os.environ.get("PCOCC_BOX", FIRST)  # of its cgroups: see boxlib/second.py
USERS = {"alice": 2001, "bob": 2002}


class BoxError(Exception):
    """What went wrong, for the person at the terminal."""


def lock(path: Path = STATE) -> int:
    """Let one command at a time change the box, or what is in a directory of it, until the descriptor is closed."""
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def read_box() -> dict[str, Any]:
    """Return what `up` recorded: nodes, cpus and the things it made on this machine."""
    try:
        found: dict[str, Any] = json.loads((STATE / "box.json").read_text())
        return found
    except FileNotFoundError:
        return {"nodes": 0, "cpus": 4, "made": []}


def write_box(box: dict[str, Any]) -> None:
    """Record the box for the next command."""
    write_if_changed(STATE / "box.json", json.dumps(box))


def node_names(count: int) -> list[str]:
    """Return the names of the nodes."""
    return [f"n{index}" for index in range(1, count + 1)]


def address(name: str) -> str:
    """Return the underlay address of a node or of the login side."""
    return "10.77.0.1" if name == LOGIN else f"10.77.0.{10 + int(name[1:])}"


def write_if_changed(path: Path, text: str, mode: int = 0o644) -> bool:
    """Write a file unless it already says this; return whether it was written."""
    if path.exists() and path.read_text() == text:
        return False
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(mode)
    fresh.rename(path)
    return True


def start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def read_pid(record: str) -> int | None:
    """Return the live process recorded as NAME (a holder) or NAME.SERVICE."""
    try:
        pid, started = (STATE / "run" / record).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == started else None


def write_pid(record: str, pid: int) -> None:
    """Record a process."""
    write_if_changed(STATE / "run" / record, f"{pid} {start_time(pid)}")


def holder_of(name: str) -> int:
    """Return the process that holds the namespaces of a node or of the login side."""
    pid = read_pid(name)
    if pid is None:
        raise BoxError(f"{name} is not up: run tests/box up")
    return pid


def read_links(name: str) -> list[str]:
    """Return the names of the network interfaces of a node."""
    lines = Path(f"/proc/{holder_of(name)}/net/dev").read_text().splitlines()[2:]
    return sorted(line.partition(":")[0].strip() for line in lines)


def processes_of(name: str) -> dict[int, str]:
    """Return the live processes in the namespaces of a node or of the login side, with their command lines."""
    holder = read_pid(name)
    found: dict[int, str] = {}
    mine = os.readlink(f"/proc/{holder}/ns/uts") if holder else ""
    for entry in os.listdir("/proc"):
        try:
            if not entry.isdigit() or not (os.readlink(f"/proc/{entry}/ns/uts") == mine or _in_cgroup(entry, name)):
                continue
            words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if start_time(int(entry)) is not None:
            found[int(entry)] = words.decode(errors="replace").strip()
    return found


def _in_cgroup(pid: str, name: str) -> bool:
    text = Path(f"/proc/{pid}/cgroup").read_text()
    return f":/{GROUP}/{name}\n" in text or f":/{GROUP}/{name}/" in text

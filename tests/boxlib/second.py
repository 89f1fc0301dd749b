"""A second box beside the first: a process that enters it finds it at the first's paths and addresses.

`PCOCC_BOX=pcocc-box-2 tests/box COMMAND` speaks of it, and so does everything that a process does after `ensure_entered`:
it has a network of its own, where the login side lives, and mounts its own files over the first one's.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from boxlib import cluster, state
from boxlib.state import STATE, USERS, BoxError

NAME = "pcocc-box-2"
PLACE = Path("/var/lib", NAME)
_NETWORK = Path("/run/netns", NAME)
_OUTSIDE = Path("/run/netns", f"{NAME}-outside")
_NEWNS, _NEWNET = 0x20000, 0x40000000  # linux/sched.h
_PRIVATE, _BIND = 0x44000, 0x5000  # linux/mount.h, with MS_REC


def is_entered() -> bool:
    """Tell whether what this process finds at the box's path is the second."""
    return PLACE.is_dir() and STATE.is_dir() and PLACE.samefile(STATE)


def ensure_entered() -> None:
    """Bring this process into the second box, which it never leaves; users and mount points are the first's to make."""
    if is_entered():
        return
    _ensure_first()
    for path in (PLACE, PLACE / "cache"):
        path.mkdir(exist_ok=True)
    for user in USERS:
        _ensure_home(user)
    if not _NETWORK.exists():
        subprocess.run(["ip", "netns", "attach", _OUTSIDE.name, str(os.getpid())], check=True)
        subprocess.run(["ip", "netns", "add", NAME], check=True)
        subprocess.run(["ip", "-netns", NAME, "link", "set", "lo", "up"], check=True)
    os.environ["PCOCC_BOX"] = state.GROUP = NAME
    libc = ctypes.CDLL(None, use_errno=True)
    network = os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    _check(libc.setns(network, _NEWNET), "setns")
    os.close(network)
    _check(libc.unshare(_NEWNS), "unshare")
    _check(libc.mount(None, b"/", None, _PRIVATE, None), "mount")
    homes = [(PLACE / "home" / user, Path("/home", user)) for user in USERS]
    for source, target in ((STATE / "cache", PLACE / "cache"), *homes, (PLACE, STATE)):
        _check(libc.mount(os.fsencode(source), os.fsencode(target), None, _BIND, None), f"mount of {source}")


def leave(argv: Sequence[str]) -> list[str]:
    """Return the command line by which a command that fetches something has the machine's own network."""
    return ["nsenter", f"--net={_OUTSIDE}", *argv] if is_entered() else [*argv]


def remove() -> None:
    """Remove what the second box has outside of its namespaces; its processes have ended."""
    for path in (_NETWORK, _OUTSIDE):
        subprocess.run(["ip", "netns", "del", path.name], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(PLACE, ignore_errors=True)


def _ensure_first() -> None:
    held = state.lock()
    box = state.read_box()
    try:
        cluster.ensure_layout(box["made"])
    finally:
        state.write_box(box)
        os.close(held)


def _ensure_home(user: str) -> None:
    home = PLACE / "home" / user
    if not home.exists():
        shutil.copytree("/etc/skel", home)
        subprocess.run(["chown", "-R", f"{user}:{user}", home], check=True)
        home.chmod(0o700)


def _check(status: int, what: str) -> None:
    if status != 0:
        raise BoxError(f"{what} for the second box failed: {os.strerror(ctypes.get_errno())}")

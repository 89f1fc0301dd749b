"""Probes that need no privilege: pings, TCP connections and open UDP ports."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pcocc_runtime.errors import NodeError

PROBE_SECONDS = 1
AT_ONCE = 32
_HEADERS = 28  # of an ICMP echo in IPv4: what `ping -s` does not count
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def ping(address: str, size: int, source: str | None = None) -> bool:
    """Tell whether an unfragmented packet of `size` bytes is answered; NodeError when ping cannot be used here."""
    argv = [
        "ping", "-n", "-q", "-c1", f"-W{PROBE_SECONDS}", "-Mdo", f"-s{size - _HEADERS}",
        *(["-I", source] if source else []), address,
    ]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_SECONDS + 10,
            check=False,
        )
    except FileNotFoundError:
        raise NodeError("the program ping is not installed", "install the package iputils-ping") from None
    except subprocess.TimeoutExpired:
        return False
    if done.returncode > 1 and "nreachable" not in done.stderr:
        raise NodeError(f"ping cannot be used: {done.stderr.strip() or done.returncode}")
    return done.returncode == 0


def answers_tcp(address: str, port: int, source: str | None = None) -> bool:
    """Tell whether a TCP port takes a connection."""
    try:
        with socket.create_connection(
            (address, port), timeout=PROBE_SECONDS, source_address=(source, 0) if source else None
        ):
            return True
    except OSError:
        return False


def find_all(items: Iterable[_Item], condition: Callable[[_Item], bool]) -> set[_Item]:
    """Return the items for which a slow condition is true; many are tried at once."""
    every = list(items)
    return {item for item, true in zip(every, ask_all(every, condition), strict=True) if true}


def ask_all(items: Sequence[_Item], question: Callable[[_Item], _Found]) -> list[_Found]:
    """Return the result of a slow function for each of the items; many run at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(question, items))


def listens_udp(port: int) -> bool:
    """Tell whether any program of this network namespace has a UDP port, from /proc/net/udp (proc(5))."""
    rows = Path("/proc/self/net/udp").read_text().splitlines()[1:]
    return any(int(row.split()[1].rpartition(":")[2], 16) == port for row in rows)

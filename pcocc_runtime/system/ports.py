"""TCP ports of the host."""

from __future__ import annotations

from pathlib import Path


def read_busy() -> frozenset[int]:
    """Return the TCP ports in use in the calling thread's network namespace, at any address (/proc/net/tcp)."""
    found: set[int] = set()
    for name in ("tcp", "tcp6"):  # a kernel without IPv6 does not have the latter
        path = Path("/proc/thread-self/net", name)
        rows = path.read_text().splitlines()[1:] if path.exists() else ()
        found |= {int(row.split()[1].rpartition(":")[2], 16) for row in rows}
    return frozenset(found)

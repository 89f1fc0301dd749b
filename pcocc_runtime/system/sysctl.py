"""The kernel's network settings in the network namespace of the calling thread."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/proc/sys/net")


def read(name: str) -> str | None:
    """Return a setting such as `ipv4/ip_forward`, None when this kernel does not have it."""
    try:
        return (_ROOT / name).read_text().strip()
    except FileNotFoundError:
        return None


def write(name: str, value: str) -> None:
    """Change a setting if it has another value; one that this kernel does not have is ignored."""
    if read(name) not in (None, value):
        (_ROOT / name).write_text(value)


def list_routing_interfaces() -> list[str]:
    """Return the names of the interfaces that IPv4 routes of the main table lead to (proc(5), /proc/net/route)."""
    rows = Path("/proc/thread-self/net/route").read_text().splitlines()[1:]
    return sorted({row.split()[0] for row in rows})

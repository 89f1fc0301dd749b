"""What the plugin writes to its root helper, line by line."""

from __future__ import annotations

from collections.abc import Iterable

from pcocc_runtime.errors import NodeError

MAX_REQUEST = 4 * 1024 * 1024  # characters; 262,144 VMs on 4,096 nodes take 0.2 MB


def parse_fields(lines: Iterable[str]) -> dict[str, list[str]]:
    """Split `key value` lines up to `end`; a missing `end` means the writer died, and is an error."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.rstrip("\n").partition(" ")
        if key == "end":
            return fields
        fields.setdefault(key, []).append(value)
    raise NodeError("the plugin's request was cut short", hint="look into slurmd's log for a slurmstepd that died")


def parse_number(fields: dict[str, list[str]], key: str, highest: int = 0xFFFFFFFF) -> int:
    """Return one whole number of the request."""
    values = fields.get(key, [])
    text = values[0] if len(values) == 1 else ""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= highest):
        raise NodeError(f"the plugin's request has no valid {key!r}", "install the same version of plugin and runtime")
    return int(text)

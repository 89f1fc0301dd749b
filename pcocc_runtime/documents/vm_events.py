"""What the keeper of a VM tells the starter of its boot step, as lines of the step's output. See docs/decisions/002."""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import TYPE_CHECKING, Record, parse_record

if TYPE_CHECKING:
    from typing import Any

PREFIX = "@pcocc "  # begins each line of the keeper's: JSON follows


class Started(Record):
    """QEMU runs, with this accelerator for this reason; `kvm_expected`: an emulation is to be told of."""

    accel: str
    why: str
    kvm_expected: bool
    vm: str
    node: str


class Ready(Record):
    """The guest answers, after so many seconds."""

    seconds: float
    vm: str
    node: str


class Silent(Record):
    """The guest did not answer within these seconds; the last lines of its console."""

    seconds: float
    console: list[str]
    vm: str
    node: str


class Unmounted(Record):
    """The guest has not mounted an exported directory; `known`: its kernel has that type of file system."""

    tag: str
    type: str
    known: bool
    vm: str
    node: str


class DiskError(Record):
    """The VM is stopped, because of a disk."""

    reason: str
    disk: str
    vm: str
    node: str


class StillOn(Record):
    """The guest was asked to power off, and has not."""

    vm: str
    node: str


class Leaving(Record):
    """Slurm ends the VM, which waits a while to be stored before."""

    vm: str
    node: str


class Ended(Record):
    """The VM has ended, `asked` to or not; `reason` is of vm_state.REASONS, `text` what a user reads."""

    reason: str
    text: str
    asked: bool
    vm: str
    node: str


_KINDS: dict[str, Any] = {
    "started": Started,
    "ready": Ready,
    "silent": Silent,
    "unmounted": Unmounted,
    "disk-error": DiskError,
    "still-on": StillOn,
    "leaving": Leaving,
    "ended": Ended,
}
if TYPE_CHECKING:
    Event = Started | Ready | Silent | Unmounted | DiskError | StillOn | Leaving | Ended


def encode_event(event: Event) -> str:
    """Return the line, with its end."""
    name = next(name for name, kind in _KINDS.items() if isinstance(event, kind))
    return PREFIX + json.dumps({"event": name, **event._asdict()}, separators=(",", ":")) + "\n"


def decode_event(line: str) -> Event | None:
    """Return the event in a line that begins with PREFIX; None for an unknown (newer) one, ValueError for no event."""
    try:
        tree = json.loads(line.removeprefix(PREFIX))
        if not isinstance(tree, dict) or not isinstance(tree.get("event"), str):
            raise ValueError("it names no event")
        kind = _KINDS.get(tree["event"])
        event: Event | None = kind and parse_record(kind, tree)
        return event
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a VM's keeper sent what cannot be read ({error}): {line[:200]}") from None

"""Root's record of a job on a node, which one of its helpers leaves for the next: what exists of the job there.

A damaged record, or another version's, is read as far as possible: a job's number alone tells most names.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, told apart from a later one with the same number by its start time (clock ticks since boot)."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What root's helper writes before all else; None is what a damaged record does not tell."""

    job: int
    step: int | None = None
    uid: int | None = None
    stepd: ProcessId | None = None
    scratch: str | None = None
    heir: int | None = None  # the older step that takes over from this one: the namespace, and who waits inside
    group: str | None = None  # the step's cgroup, None when it has none: then its processes end with its slurmstepd
    nat: str = "null"  # what the job holds of the node, as documents/work.py encodes it: a release does not read it


def encode_record(record: JobRecord) -> bytes:
    """Return the file's content, a mapping of the fields; versions of pcocc that know others can read it, too."""
    return json.dumps({**asdict(record), "nat": json.loads(record.nat)}).encode()


def decode_record(job: int, data: bytes) -> JobRecord:
    """Return a job's record as far as the file's content tells it."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        tree = None
    fields = tree if isinstance(tree, dict) else {}
    ids = fields.get("stepd")
    pid, start = (_number(ids.get(key)) if isinstance(ids, dict) else None for key in ("pid", "start"))
    stepd = None if pid is None or start is None else ProcessId(pid, start)
    step, uid, heir = (_number(fields.get(key)) for key in ("step", "uid", "heir"))
    paths = (str(fields.get(key)) for key in ("scratch", "group"))
    scratch, group = (path if path.startswith("/") and "\0" not in path else None for path in paths)
    return JobRecord(job, step, uid, stepd, scratch, heir, group, json.dumps(fields.get("nat")))


def _number(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None

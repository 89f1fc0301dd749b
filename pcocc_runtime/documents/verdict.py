"""What a node knows of its accelerator: root's helper keeps it until the next boot or QEMU, `pcocc node check` shows it."""

from __future__ import annotations

import json
from typing import NamedTuple

KVM_DEVICE = "/dev/kvm"
VERDICT_FILE = "accel.json"  # in root's own directory on the node
MAX_VERDICT = 64 * 1024  # bytes


def identify(qemu: str, modified: int | None, size: int | None, has_kvm: bool) -> list[object]:
    """Return what tells a QEMU on a node from another: its path, when it was modified, its size, and whether there is /dev/kvm."""
    return [qemu, modified, size, has_kvm]


class Verdict(NamedTuple):
    """`kind` is kvm or tcg, `why` a clause for people, `when` in seconds since 1970; `again`: it is to be tried once more."""

    kind: str
    why: str
    when: int = 0
    again: bool = False


def encode_verdict(verdict: Verdict, key: list[object]) -> bytes:
    """Return the file's content; `key` is of JSON's types and tells what was tried: it holds for nothing else."""
    return json.dumps({"key": key, **verdict._asdict()}).encode()


def decode_verdict(data: bytes | None, key: list[object] | None = None) -> Verdict | None:
    """Return what is in the file; None where there is none, for another key, and when it is damaged or another version's."""
    try:
        tree = json.loads(data or b"")
        found = Verdict(tree["kind"], tree["why"], tree["when"], tree["again"])
        same = key is None or tree["key"] == key
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    fits = found.kind in ("kvm", "tcg") and isinstance(found.why, str) and type(found.when) is int and type(found.again) is bool
    return found if same and fits else None

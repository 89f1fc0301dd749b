"""What a node knows of its accelerator, until it boots again or has another QEMU; `pcocc node check` shows it."""

from __future__ import annotations

import json
from typing import NamedTuple

KVM_DEVICE = "/dev/kvm"
VERDICT_FILE = "accel.json"  # in root's own directory on the node
MAX_VERDICT = 64 * 1024  # bytes


class Verdict(NamedTuple):
    """`kind` is kvm or tcg, `why` a clause for people, `when` in seconds since 1970; `again`: try it again."""

    kind: str
    why: str
    when: int = 0
    again: bool = False


def encode_verdict(verdict: Verdict, key: list[object]) -> bytes:
    """Return the file's content; `key` is of JSON's types and tells what was tried: it holds for that alone."""
    return json.dumps({"key": key, **verdict._asdict()}).encode()


def decode_verdict(data: bytes | None, key: list[object] | None = None) -> Verdict | None:
    """Return what the file says; None when it is missing, for another key, damaged, or of another version."""
    try:
        tree = json.loads(data or b"")
        found = Verdict(tree["kind"], tree["why"], tree["when"], tree["again"])
        same = key is None or tree["key"] == key
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    types = (type(found.why), type(found.when), type(found.again))
    fits = found.kind in ("kvm", "tcg") and types == (str, int, bool)
    return found if same and fits else None

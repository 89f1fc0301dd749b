"""What a QEMU can do of what its releases differ in: asked once for a job on a node, and kept (docs/decisions/039)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

MAX_ABILITIES = 1 << 20  # bytes


class Abilities(NamedTuple):
    """What a QEMU `has`: names of options (qemu/asking.py); `lacks`: each CPU model's flags that do not work here."""

    version: tuple[int, int] = (0, 0)
    has: frozenset[str] = frozenset()
    lacks: Mapping[str, tuple[str, ...]] = {}


PLAIN = Abilities()


def encode_abilities(found: Abilities, key: list[object]) -> bytes:
    """Return the file's content; `key` is of JSON's types and tells which QEMU was asked, and with what accelerator."""
    return json.dumps(
        {"key": key, "version": found.version, "has": sorted(found.has), "lacks": dict(found.lacks)}
    ).encode()


def decode_abilities(data: bytes | None, key: list[object]) -> Abilities | None:
    """Return what is in the file; None when it is missing, damaged, for another QEMU or of another version."""
    try:
        tree = json.loads(data or b"")
        if tree["key"] != key:
            return None
        major, minor = map(int, tree["version"])
        lacks = {str(model): tuple(map(str, flags)) for model, flags in tree["lacks"].items()}
        return Abilities((major, minor), frozenset(map(str, tree["has"])), lacks)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None

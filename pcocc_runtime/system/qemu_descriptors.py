"""JSON descriptors that QEMU packages install, of firmware and vhost-user programs (QEMU: docs/interop)."""

from __future__ import annotations

import json
import os
from typing import Any

# a file in the first one hides a file of the same name in the second
DIRECTORIES = ("/etc/qemu", "/usr/share/qemu")


def read_descriptors(kind: str) -> list[dict[str, Any]]:
    """Return the descriptors of a kind (firmware, vhost-user) by file name; an empty file hides one of its name."""
    found: dict[str, str] = {}
    for directory in reversed(DIRECTORIES):
        try:
            names = [name for name in os.listdir(f"{directory}/{kind}") if name.endswith(".json")]
        except OSError:
            continue
        found |= {name: f"{directory}/{kind}/{name}" for name in names}
    return [tree for _name, path in sorted(found.items()) if (tree := _read(path)) is not None]


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path) as stream:
            tree = json.load(stream)
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None

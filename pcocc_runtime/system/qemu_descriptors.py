"""The descriptors that QEMU packages install, of firmware and vhost-user programs (QEMU: docs/interop)."""

from __future__ import annotations

import os

# a file in the first one hides a file of the same name in the second
DIRECTORIES = ("/etc/qemu", "/usr/share/qemu")


def read_descriptors(kind: str) -> list[bytes]:
    """Return the files of a kind (firmware, vhost-user) by name; an empty one hides one of the same name."""
    found: dict[str, str] = {}
    for directory in reversed(DIRECTORIES):
        try:
            names = [name for name in os.listdir(f"{directory}/{kind}") if name.endswith(".json")]
        except OSError:
            continue
        found |= {name: f"{directory}/{kind}/{name}" for name in names}
    return [text for _name, path in sorted(found.items()) if (text := _read(path))]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""

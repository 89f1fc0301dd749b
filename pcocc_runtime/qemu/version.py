"""The version of a QEMU, as `--version` writes it."""

from __future__ import annotations

import re

TAKES_KVM_OPEN = (8, 2)  # from here on it takes /dev/kvm as a descriptor (commit aef158b093)


def parse_version(text: str) -> tuple[int, int] | None:
    """Return the first two numbers of a version, None when the text is not from a QEMU."""
    found = re.match(r"QEMU emulator version (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None

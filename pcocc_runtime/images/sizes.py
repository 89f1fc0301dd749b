"""Sizes of disks, as people write and read them."""

from __future__ import annotations

import re

from pcocc_runtime.errors import RequestError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str, old: int) -> int:
    """Return a disk's size in bytes from a text such as 20G, or +5G for that much more than `old`."""
    if re.match("-[0-9]", text):
        raise RequestError("a disk cannot be made smaller", "the file systems in it would be cut off")
    match = re.fullmatch(r"(\+?)([0-9]{1,15})([KMGT]?)(?:i?B)?", text, re.ASCII)
    size = int(match[2]) * _UNITS[match[3]] + (old if match[1] else 0) if match else 0
    if not size or size % 512 or size >= 1 << 53:
        raise RequestError(
            f"{text[:80]!r} is not the size of a disk", "write 20G, 500M or 2T, or +5G for that much more"
        )
    return size


def render_size(size: float) -> str:
    """Return a size in bytes for people, such as 20G or 1.5M."""
    unit = "B"
    for bigger in "KMGTPE":
        if size < 1024:
            break
        size, unit = size / 1024, bigger
    return f"{size:.1f}".removesuffix(".0") + unit

"""What qemu-img prints, parsed."""

from __future__ import annotations

import json
import re

PROGRESS_END = 10000  # what `parse_progress` returns at the end of the work


def parse_extent(line: str) -> tuple[int, int] | None:
    """Return the bytes of data in a line of `qemu-img map` and where they end in the file, 0 where it does not say.

    It does not say that for compressed data, which take less of the file than their length. None when the line
    is not one of map's.
    """
    try:
        tree = json.loads(line.strip().lstrip("[").rstrip(",]"))
        if not tree["data"]:
            return 0, 0
        return tree["length"], (
            tree["offset"] + tree["length"] if "offset" in tree and not tree.get("compressed") else 0
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def parse_progress(line: str) -> int | None:
    """Return how far a line of `-p` says the work is, None when it is another line."""
    match = re.fullmatch(r"\(([0-9.]+)/100%\)", line)
    return int(float(match[1]) * PROGRESS_END / 100) if match else None


def clean_line(line: str) -> str:
    """Return a line of qemu-img's without its own name and without our json: file names."""
    return re.sub(r"(Could not open )?'?json:\{.*\}'?: ?", "", line.removeprefix("qemu-img: "))

"""gres.conf(5): which generic resources its lines name."""

from __future__ import annotations

import re
from typing import NamedTuple


class GresLine(NamedTuple):
    """A line of gres.conf: its number, the name of the GRES, and whether it lists device files."""

    number: int
    name: str
    has_files: bool


def parse_gres_conf(text: str) -> list[GresLine]:
    """Return the lines that name a GRES; a line may go on behind a backslash."""
    found, number, held = list[GresLine](), 1, ""
    for place, line in enumerate(text.splitlines(), 1):
        number = number if held else place
        held += line.partition("#")[0]
        if held.endswith("\\"):
            held = f"{held[:-1]} "
            continue
        words = {key.lower(): value for key, value in re.findall(r"(\w+)\s*=\s*(\S+)", held)}
        if "name" in words:
            found.append(GresLine(number, words["name"], "file" in words or "multiplefiles" in words))
        held = ""
    return found

"""One line for each figure, and the table of them in SPECIFICATION.md."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.boot.box import ROOT

SPECIFICATION = ROOT / "SPECIFICATION.md"
_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True)
class Figure:
    """What was measured, what it is compared with, and what is asked of it."""

    what: str
    value: str
    baseline: str
    asked: str


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def write(figures: Sequence[Figure], date: str) -> None:
    """Replace the table in SPECIFICATION.md."""
    rows = [f"| {one.what} | {one.value} | {one.baseline} | {one.asked} |" for one in figures]
    machine = f"Measured {date} on {os.cpu_count()} CPUs, QEMU with TCG, two nodes of the box on one machine."
    table = "\n".join([_BEGIN, machine, "", "| what | measured | beside it | asked |", "|---|---|---|---|", *rows, _END])
    text = SPECIFICATION.read_text()
    if _BEGIN in text:
        text = re.sub(f"{_BEGIN}.*{_END}", lambda _match: table, text, flags=re.DOTALL)
    else:
        text = f"{text.rstrip()}\n\n## Figures of the box\n\n{table}\n"
    Path(SPECIFICATION).write_text(text)

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


@dataclass(frozen=True)
class Figure:
    """What was measured, what it is compared with, and what is asked of it."""

    what: str
    value: str
    baseline: str
    asked: str

    @property
    def line(self) -> str:
        """Return it as a line of text."""
        return f"{self.what}: {self.value}; {self.baseline} (asked: {self.asked})"


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def write(
    figures: Sequence[Figure],
    date: str,
    table: str = "figures",
    title: str = "Figures of the box",
    machine: str = f"on {os.cpu_count()} CPUs, QEMU with TCG, two nodes of the box on one machine",
) -> None:
    """Replace a table in SPECIFICATION.md, or add it under its title."""
    begin, end = f"<!-- {table}: begin -->", f"<!-- {table}: end -->"
    rows = [f"| {one.what} | {one.value} | {one.baseline} | {one.asked} |" for one in figures]
    block = "\n".join([
        begin, f"Measured {date} {machine}.", "", "| what | measured | beside it | asked |", "|---|---|---|---|", *rows,
        end,
    ])
    text = SPECIFICATION.read_text()
    if begin not in text:
        text = f"{text.rstrip()}\n\n## {title}\n\n{begin}{end}\n"
    text = re.sub(f"{begin}.*{end}", lambda _match: block, text, flags=re.DOTALL)
    Path(SPECIFICATION).write_text(text)

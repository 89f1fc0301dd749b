"""Text that all commands write the same way: tables, and counts such as `2 layers`."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines, each column as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def count(number: int, noun: str) -> str:
    """Return a number of things in words: 1 layer, 2 layers."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

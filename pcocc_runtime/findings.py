"""What a check has found: sentences that something is right, worth knowing or wrong, with what helps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WELL, NOTE, FAILED = "ok", "note", "FAILED"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about something that was checked: it is right, has failed, or is worth knowing."""

    level: str
    text: str
    hint: str | None = None


def failed(findings: Iterable[Finding]) -> int:
    """Return how many of these are failures."""
    return sum(one.level == FAILED for one in findings)


def render_lines(findings: Iterable[Finding]) -> list[str]:
    """Return a line for each finding, with its hint below it."""
    lines = []
    for one in findings:
        lines.append(f"{one.level:<8}{one.text}")
        lines += [f"{'':<8}hint: {one.hint}"] if one.hint else []
    return lines

"""The pages of docs/guide, and docs/admin.md, as what is typed and seen: the boxes marked `console`.

`$ ` begins a user's command, `# ` root's, `> ` continues it, the rest is what it prints; `...` is any text,
alone on a line any lines. Lines of pcocc itself on stderr (`pcocc: booting 2 VMs`) are shown to the reader
and not compared.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[1] / "docs/guide"
_BOX = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WAITED = re.compile(r"srun: (Job \d+ step creation temporarily disabled, retrying|Step created for )")


@dataclass(frozen=True)
class Typed:
    """A command with its further lines, what it should print, its line number in the page, and whether root types it."""

    command: str
    expected: tuple[str, ...]
    line: int
    as_root: bool = False


def parse_page(text: str) -> list[Typed]:
    """Return the commands of a page in order; ValueError when a box does not begin with one."""
    found = []
    for box in _BOX.finditer(text):
        first = text.count("\n", 0, box.start(1)) + 1
        found += list(_parse_box(box[1].splitlines(), first))
    return found


def _parse_box(lines: Sequence[str], first: int) -> Iterator[Typed]:
    starts = [number for number, line in enumerate(lines) if line.startswith(("$ ", "# "))]
    if not starts or starts[0]:
        raise ValueError(f"line {first}: a box begins with '$ ' or '# '")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        command, rest = [lines[start][2:]], list(lines[start + 1 : end])
        while rest and rest[0].startswith(">"):
            command.append(rest.pop(0)[2:])
        yield Typed("\n".join(command), tuple(rest), first + start, lines[start].startswith("#"))


def find_difference(expected: Sequence[str], said: str) -> str | None:
    """Return the first expected line that was not printed in its place, or what was printed in addition; None when all is
    right.
    """
    wanted, lines = (_order_tasks(_clean(text)) for text in (expected, said.splitlines()))
    position, anywhere = 0, False
    for line in wanted:
        if line == "...":
            anywhere = True
            continue
        pattern = ".*".join(map(re.escape, line.split("...")))
        places = range(position, len(lines)) if anywhere else range(position, min(position + 1, len(lines)))
        place = next((one for one in places if re.fullmatch(pattern, lines[one])), None)
        if place is None:
            return f"{line!r} is expected, and there is {lines[position] if position < len(lines) else 'nothing'!r}"
        position, anywhere = place + 1, False
    return None if anywhere or position == len(lines) else f"{lines[position]!r} is not expected"


def _order_tasks(lines: Sequence[str]) -> list[str]:
    """Return lines in which those of an `srun -l` are sorted by task, since they come in any order."""
    groups = itertools.groupby(lines, key=lambda line: re.match(r"\d+: ", line) is not None)
    return [line for labelled, some in groups for line in (sorted(some) if labelled else some)]


def _clean(lines: Sequence[str]) -> list[str]:
    """Return lines in the form in which they are compared: columns may have any width, and srun may wait for an earlier
    step to end.
    """
    kept = [" ".join(line.split()) for line in lines if not line.startswith("pcocc: ") and not _WAITED.match(line)]
    return [line for line in kept if line]

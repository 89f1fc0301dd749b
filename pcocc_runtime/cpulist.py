"""Lists of CPUs and NUMA nodes as Linux and QEMU write them: 0-3,8 (cpuset(7), "List format")."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 1 << 16  # CPUs that a list can speak of


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Return the numbers of a list in order; no numbers when the text is not such a list."""
    found: list[int] = []
    for word in text.strip().split(",") if text.strip() else ():
        first, dash, last = word.strip().partition("-")
        last = last if dash else first
        if not (_is_number(first) and _is_number(last)):
            return ()
        found += range(int(first), int(last) + 1)
    return tuple(sorted({*found}))


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= len(str(_MOST)) and int(text) < _MOST


def render_cpu_list(numbers: Iterable[int]) -> str:
    """Return numbers as such a list, runs written as first-last."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)

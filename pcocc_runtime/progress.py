"""How work that takes long reports its progress: it names each phase, and the command line decides what to show."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int, int], None]  # what is done, and the total, in any unit; a total of 0 is not known
Progress = Callable[[str], Advance]  # begins a phase
Note = Callable[[str], None]  # tells what is good to know, in a sentence


def unwatched(_done: int, _total: int) -> None:
    """Report progress to nobody."""


def silent(_phase: str) -> Advance:
    """Begin a phase whose progress nobody shows."""
    return unwatched

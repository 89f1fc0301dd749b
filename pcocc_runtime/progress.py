"""How work that may take long tells how far it is: verbs name each phase, cli.py shows what it likes of it."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int, int], None]  # what is done and what there is to do, in any unit; 0 to do: not known
Progress = Callable[[str], Advance]  # begins a phase


def silent(_phase: str) -> Advance:
    """Begin a phase that nobody watches."""
    return lambda done, total: None

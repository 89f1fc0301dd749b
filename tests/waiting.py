"""How long tests wait for what must happen: a way out of hangs, wide enough for a machine that many share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 5  # times as long as anything takes on two idle cores without KVM


def limit(seconds: float) -> float:
    """Return how many seconds to wait for what may take this many."""
    return seconds * PATIENCE


def wait_for(condition: Callable[[], T], what: object = "it", seconds: float = 30, pause: float = 0.1) -> T:
    """Return the first true value of the condition; fail, with `what` or what it says by then, when there is none in time."""
    end = time.monotonic() + limit(seconds)
    while not (found := condition()):
        assert time.monotonic() < end, f"{what() if callable(what) else what}: not so after {limit(seconds):.0f} s"
        time.sleep(pause)
    return found


def wait_closely(condition: Callable[[], T], what: object = "it", seconds: float = 30) -> T:
    """The same, for what passes quickly or costs nothing to ask."""
    return wait_for(condition, what, seconds, 0.005)

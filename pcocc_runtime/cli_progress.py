"""A line on stderr that tells how far work is: rewritten on a terminal, now and then elsewhere, none for short work."""

from __future__ import annotations

import sys
import time

from pcocc_runtime import cli_streams
from pcocc_runtime.progress import Watch

_DELAY = 2.0  # seconds that pass in silence
_EVERY = {True: 0.2, False: 30.0}  # seconds between lines, on a terminal or not


class Meter:
    """Shows the phases of one command; leaves nothing on the terminal when it ends."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._next = time.monotonic() + _DELAY
        self._shown = False

    def begin(self, phase: str) -> Watch:
        """Begin a phase; what this returns is told how far it is."""
        start = time.monotonic()

        def watch(done: int, total: int) -> None:
            now = time.monotonic()
            if now >= self._next:
                self._next = now + _EVERY[self._tty]
                self._show(phase + _render(done, total, now - start))

        return watch

    def _show(self, text: str) -> None:
        self._shown = True
        cli_streams.say(f"\r\033[K{text[:200]}" if self._tty else f"pcocc: {text}\n")

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._shown and self._tty:
            cli_streams.say("\r\033[K")


def _render(done: int, total: int, seconds: float) -> str:
    if not total:
        return f": {done >> 20} MiB" if done else " ..."
    left = seconds * (total - done) / done if done else 0
    return f": {100 * done // total}%" + (f", {_duration(left)} left" if seconds > 1 and done < total else "")


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{int(seconds)} s"

"""What `pcocc` writes to a terminal, a pipe or a file: errors, notes and progress.

A closed or full output, or an encoding that lacks a character, never makes the work itself fail.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from typing import TextIO

from pcocc_runtime import errors
from pcocc_runtime.progress import Advance

QUIET_SECONDS = 2.0  # of work, before anything is said of it
_REWRITE_SECONDS = 0.2  # between two states of a line on a terminal
_REPEAT_SECONDS = 30.0  # between two lines of a command whose standard error is no terminal
_LONGEST = 200  # characters of a line


class ProgressLine:
    """A line on standard error about work that takes long: rewritten on a terminal, written once elsewhere.

    With `repeat`, it is written again there every so many seconds. Nothing is shown for the first QUIET_SECONDS.
    """

    def __init__(self, repeat: float | None = None) -> None:
        self.is_terminal = sys.stderr.isatty()
        self.shown = False
        self._pause = _REWRITE_SECONDS if self.is_terminal else repeat
        self._next: float | None = time.monotonic() + QUIET_SECONDS

    def is_due(self) -> bool:
        """Tell whether `show` would write anything now."""
        return self._next is not None and time.monotonic() >= self._next

    def show(self, text: str, elsewhere: str | None = None) -> None:
        """Show how far the work is, if it is time to; `elsewhere` is the text for where the line is not rewritten."""
        if self.is_due():
            self._next = None if self._pause is None else time.monotonic() + self._pause
            self.shown = True
            line = errors.one_line(text if self.is_terminal else elsewhere or text)[:_LONGEST]
            say(f"\r\033[K{line}" if self.is_terminal else f"pcocc: {line}\n")

    def clear(self) -> None:
        """Remove the line from the terminal, for example before a message; the next `show` writes it again."""
        if self.shown and self.is_terminal:
            say("\r\033[K")


class Meter:
    """Shows the phases of one command; leaves nothing on the terminal when it ends."""

    def __init__(self) -> None:
        self._line = ProgressLine(repeat=_REPEAT_SECONDS)

    def begin(self, phase: str) -> Advance:
        """Begin a phase; call what this returns to tell how far it is."""
        start = time.monotonic()

        def watch(done: int, total: int) -> None:
            if self._line.is_due():
                self._line.show(phase + _how_far(done, total, time.monotonic() - start))

        return watch

    def note(self, text: str) -> None:
        """Write a note on a line of its own, whatever progress is shown."""
        self._line.clear()
        say_note(text)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_error: object) -> None:
        self._line.clear()


def _how_far(done: int, total: int, seconds: float) -> str:
    if not total:
        return f": {done >> 20} MiB" if done else " ..."
    left = seconds * (total - done) / done if done else 0
    return f": {100 * done // total}%" + (f", {_duration(left)} left" if seconds > 1 and done < total else "")


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min" if minutes else f"{int(seconds)} s"
    )


_NUMBERS = {"stdout": 1, "stderr": 2}


def ensure_open() -> None:
    """Replace closed outputs by /dev/null, and have characters that the locale lacks written as escapes."""
    for name, number in _NUMBERS.items():
        if getattr(sys, name) is None:
            _discard(number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def write_out(text: str) -> None:
    """Write to standard output at once, before anything else is said."""
    sys.stdout.write(text)
    sys.stdout.flush()


def say(text: str) -> None:
    """Write to standard error, if anybody can read it."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr, _NUMBERS["stderr"])


def say_error(error: errors.PcoccError) -> None:
    """Write an error to standard error."""
    say(f"{errors.render(error)}\n")


def say_note(text: str) -> None:
    """Write a note to standard error: nothing is wrong, but the user should know it."""
    say(f"pcocc: note: {errors.one_line(text)}\n")


def finish_output() -> int:
    """Flush standard output; return 1 when that fails; the failure is reported unless the reader has gone."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _drop(sys.stdout, _NUMBERS["stdout"])
        if not isinstance(error, BrokenPipeError):  # `pcocc template list | head`
            say_error(errors.PcoccError(f"standard output cannot be written: {error.strerror}"))
        return errors.EXIT_FAILURE
    return 0


def _drop(stream: TextIO, number: int) -> None:
    """Drop what a stream has buffered, so that it does not fail again at exit."""
    _discard(number)
    with contextlib.suppress(OSError):
        stream.flush()


def _discard(number: int) -> None:
    """Replace a descriptor by one of /dev/null."""
    null = os.open(os.devnull, os.O_WRONLY)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def confess(error: Exception) -> errors.PcoccError:
    """Return the error to show for a bug in pcocc; with PCOCC_DEBUG set the traceback is written before it."""
    hint = "please report it, with what the command prints after 'export PCOCC_DEBUG=1'"
    if os.environ.get("PCOCC_DEBUG"):
        import traceback

        say("".join(traceback.format_exception(error)))
        hint = "please report it, with the lines above"
    return errors.PcoccError(f"this is a bug in pcocc: {type(error).__name__}: {error}", hint)


def printable(text: str) -> str:
    """Return `text` with only line ends and tabs as control characters, so that a guest cannot move the cursor."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)

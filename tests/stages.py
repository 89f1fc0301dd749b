"""What continuous integration runs, one stage after another: `.ci/run`, which is `python3 -m tests.stages`."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.releaselib.command import NO_ROOT
from tests.releaselib.suites import ROOT

LIMIT = 60  # minutes within which everything must be over: a stage that would take longer is not begun, and reported
END = 80  # minutes after which everything is ended, on a machine that is slower than known ones
_PATIENCE = 60  # seconds in which a stage that is ended may remove what it has made
_MADE = re.compile(r"\S+: .*\bmade\b.* in \d+ s$|installing Debian packages|making the Python environment")
_CLOSING = re.compile(r"^=+ (.*\b(?:passed|failed|errors?|deselected|no tests ran)\b.* in .*?) =+$")


@dataclass(frozen=True, slots=True)
class Stage:
    """A command; the minutes it takes on two idle cores when everything that it keeps is made anew; whether its failure fails
    the whole run.

    Nothing is run after a stage that is `first` of all has failed.
    """

    argv: tuple[str, ...]
    minutes: int
    gates: bool = True
    first: bool = False

    @property
    def name(self) -> str:
        """Return what is typed to run it alone."""
        return " ".join(self.argv)


# Those after the first stop nobody yet: each has been seen to pass in parts, not from its beginning to its end (docs/tested.md).
STAGES = (
    Stage(("make", "test"), 45, first=True),
    Stage(("tests/release", "trixie"), 15, gates=False),
    Stage(("tests/node-machine", "test"), 15, gates=False),
    Stage(("tests/release", "sid"), 15, gates=False),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stage went, after how many seconds, its tests' closing line or the reason, and what it says it has made anew."""

    stage: Stage
    verdict: Literal["passed", "failed", "not tried"]
    seconds: float = 0.0
    closing: str = ""
    made: tuple[str, ...] = ()


def plan_start(stage: Stage, elapsed: float) -> str | None:
    """Return why a stage is not begun so many seconds after the first; None when it is."""
    left = LIMIT - elapsed / 60
    return None if left >= stage.minutes else f"{max(left, 0):.0f} minutes are left, and it may take {stage.minutes}"


def parse_outcome(stage: Stage, status: int, seconds: float, text: str) -> Outcome:
    """Return how a stage went, by its exit status and what it has printed."""
    lines = [line.rstrip() for line in text.splitlines()]
    closing = next((found[1] for line in reversed(lines) if (found := _CLOSING.match(line))), "")
    made = tuple(line for line in lines if _MADE.match(line))
    if status == NO_ROOT:
        return Outcome(stage, "not tried", seconds, next((line for line in reversed(lines) if "error: " in line), ""), made)
    return Outcome(stage, "failed" if status else "passed", seconds, closing or f"it ended with status {status}", made)


def render_report(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Return the report at the end: each stage, what was made anew, and prominently what has failed or was not tried."""
    lines = ["", "stage                     minutes  result"]
    lines += [f"{one.stage.name:<25} {one.seconds / 60:7.1f}  {one.verdict}: {one.closing}" for one in outcomes]
    lines += [f"{'all':<25} {seconds / 60:7.1f}", "made anew:"]
    lines += [f"    {line}" for one in outcomes for line in one.made] or ["    nothing"]
    for one in outcomes:
        if one.verdict == "failed":
            lines.append(
                f"!!! {one.stage.name} FAILED"
                + ("" if one.stage.gates else ", which stops nobody: look at it, and mend it")
            )
        elif one.verdict == "not tried":
            lines.append(f"!!! {one.stage.name} WAS NOT TRIED: {one.closing}")
    return "\n".join(lines) + "\n"


def decide(outcomes: Iterable[Outcome]) -> int:
    """Return the exit status of the whole run: 1 when a stage that gates has failed.

    A stage that was not tried says nothing about this project.
    """
    return int(any(one.verdict == "failed" and one.stage.gates for one in outcomes))


def run_all(stages: Iterable[Stage], run: Callable[[Stage, float], Outcome], clock: Callable[[], float] = time.monotonic) -> int:
    """Run stages by `run`, which is told the seconds it may take; print the report, and return the exit status."""
    begin, outcomes, broken = clock(), list[Outcome](), ""
    for stage in stages:
        elapsed = clock() - begin
        if reason := broken or plan_start(stage, elapsed):
            outcomes.append(Outcome(stage, "not tried", closing=reason))
            continue
        print(f"ci: {stage.name}, after {elapsed / 60:.0f} minutes", flush=True)
        outcomes.append(run(stage, END * 60 - elapsed))
        if stage.first and decide(outcomes):
            broken = f"{stage.name} has failed"
    print(render_report(outcomes, clock() - begin), end="", flush=True)
    return decide(outcomes)


def run_stage(stage: Stage, seconds: float) -> Outcome:
    """Run a stage, and show what it says; it is ended, and has failed, after so many seconds."""
    begin, said, is_over = time.monotonic(), bytearray(), False
    with subprocess.Popen(
        stage.argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            is_over = _pass_on(process, said, begin + seconds)
        finally:
            if not is_over:
                _end(process)
    took = time.monotonic() - begin
    if not is_over:
        return Outcome(stage, "failed", took, f"it was ended after {took / 60:.0f} minutes: no time is left")
    return parse_outcome(stage, process.returncode, took, said.decode(errors="replace"))


def _pass_on(process: subprocess.Popen[bytes], said: bytearray, end: float) -> bool:
    """Write what a process says to this one's stdout, and keep it, until it has ended; return whether it did in time."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    while time.monotonic() < end:
        ready, _, _ = select.select([descriptor], [], [], 1)
        part = os.read(descriptor, 1 << 16) if ready else b""
        said += part
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        if not part and (ready or process.poll() is not None):  # the latter: a process that it has left holds the pipe
            return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, which may first remove what it has made."""
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    sys.exit(run_all(STAGES, run_stage))

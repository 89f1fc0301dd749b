"""Copies a layer, and ends each copy by a signal at a random moment; prints what was seen of each: `python -IS
interrupted_copy.py DIR
TIMES`."""

from __future__ import annotations

import random
import signal
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pcocc_runtime.save.copy import copy_layer  # noqa: E402

SECONDS = 0.015  # about as long as a copy takes


class Interrupted(BaseException):
    """What the handler raises."""


def interrupt(_number: int, _frame: object) -> None:
    """Be the handler."""
    raise Interrupted


def run(source: Path, target: Path, seconds: float) -> str:
    """Copy, with a signal after a while; return which ended first, the copy or the time."""
    target.unlink(missing_ok=True)
    seen = "interrupted"
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        copy_layer(source, target, bytes, 4096, lambda _at, _total: None, lambda: None, lambda: None)
        seen = "copied"
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupted:
        pass
    return seen


def main(directory: Path, times: int) -> None:
    """Print a line for each copy."""
    source = directory / "source"
    source.write_bytes(random.randbytes(1 << 20))
    signal.signal(signal.SIGALRM, interrupt)
    for _ in range(times):
        try:
            seen = run(source, directory / "target", random.uniform(1e-5, SECONDS))
        except Interrupted:  # just after the copy
            seen = "copied"
        threads, blocked = threading.active_count() - 1, signal.pthread_sigmask(signal.SIG_BLOCK, ())
        print(seen, threads, len(blocked))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

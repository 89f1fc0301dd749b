"""Runs a command of tests/ that makes machines: as root, cleanly ended by signals; a failure is one line and an exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from .suites import ReleaseError, RootError, say

NO_ROOT = 75


def run_as_root(name: str, reason: str, own_error: int, run: Callable[[], int]) -> int:
    """Run a command's work, and return the exit status.

    `reason` says why it needs root; `own_error` is the exit status of a failure.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    try:
        if os.geteuid() != 0:
            raise ReleaseError(f"run as root: {reason}")
        return run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except subprocess.TimeoutExpired:
        say("interrupted; the command did not end by itself")
        return 128 + signal.SIGINT
    except ReleaseError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return NO_ROOT if isinstance(error, RootError) else own_error

"""How a command of tests/ runs that makes machines: as root, ended by signals in order, its failure a line and a status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from .suites import ReleaseError, RootError, say

NO_ROOT = 75


def run_as_root(name: str, reason: str, own_error: int, run: Callable[[], int]) -> int:
    """Run what a command does, and return the exit status; `reason` says why it needs root, `own_error` is a failure's."""
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

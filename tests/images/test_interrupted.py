"""A save's copy and its threads, ended by a signal at any moment: nothing of it goes on."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.images import interrupted_copy
from tests.waiting import limit


def test_a_copy_that_a_signal_ends_leaves_no_thread_and_no_signal_blocked(tmp_path: Path) -> None:
    argv = [sys.executable, "-IS", interrupted_copy.__file__, str(tmp_path), "1000"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=limit(60))
    assert (done.returncode, done.stderr) == (0, "")
    seen = Counter(done.stdout.splitlines())
    assert set(seen) == {"interrupted 0 0", "copied 0 0"} and seen["interrupted 0 0"] > 200

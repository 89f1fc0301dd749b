"""A tap of several queues, opened by root, is one interface of a guest."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_qemu_takes_the_queues_that_root_has_opened() -> None:
    argv = ["unshare", "--net", sys.executable, str(ROOT / "tests/netns/queued.py"), str(ROOT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and '"main-mac": "52:54:00:00:00:01"' in done.stdout, done.stdout + done.stderr

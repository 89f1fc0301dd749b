"""The guests of these tests, made once for a version of their scripts."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

from tests.qemu.vm import ROOT


def build(name: str, path: Path) -> None:
    """Make a guest, once for a version of its script and of what that sources."""
    script, stamp = ROOT / f"tests/guest/build-{name}.sh", ROOT / f"build/guest/{name}.from"
    sourced = sorted({*script.parent.glob("*.sh")} - {*script.parent.glob("build-*.sh")})
    text = "".join(path.read_text() for path in (script, *sourced))
    stamp.parent.mkdir(parents=True, exist_ok=True)
    with stamp.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other process of the tests may need it, too
        if not stamp.exists() or stamp.read_text() != text:
            done = subprocess.run([script, path], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            stamp.write_text(text)

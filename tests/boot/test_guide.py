"""Every line of docs/guide, typed by alice in a home of her own: it works, and says what the page shows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.boot.box import ROOT, STATE, Box
from tests.guide import GUIDE, find_difference, parse_page

FETCHED = "debian-12-genericcloud-amd64.qcow2"  # what the reader of first-vm.md has fetched


@pytest.mark.parametrize("page", ["first-vm.md", "cloud-config.md", "directories.md", "steps.md", "day.md", "checkpoint.md"])
def test_what_the_guide_says_is_so(box: Box, home: Path, page: str) -> None:
    if page == "cloud-config.md":
        subprocess.run(
            [ROOT / "tests/box", "image", "debian"], check=True, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=900,
        )
    shutil.copy(STATE / "images/tiny.qcow2", home / FETCHED)  # here it is a smaller one
    shutil.chown(home / FETCHED, "alice", "alice")
    for typed in parse_page((GUIDE / page).read_text()):
        done = box.run(["bash", "-c", typed.command], env={"HOME": str(home)}, cwd=str(home), timeout=600)
        place = f"{page}:{typed.line}: {typed.command}"
        assert done.returncode == 0, f"{place}: status {done.returncode}: {done.stdout}{done.stderr}"
        wrong = find_difference(typed.expected, done.stdout)
        assert wrong is None, f"{place}: {wrong}\n{done.stdout}{done.stderr}"

"""The table of what is tested on what says what the runners know, and what is so where they run."""

import os
import platform
import re
import socket
import subprocess

from tests.releaselib.suites import KEPT, ROOT, SUITES, Suite
from tests.tested import HOST, render


def test_the_table_is_what_the_runners_know() -> None:
    assert (ROOT / "docs/tested.md").read_text() == render(), "python3 -m tests.tested >docs/tested.md"


def find_here() -> Suite | None:
    """Return what the table says of this machine: one of tests/release's, or Debian 12 as it is; None: it is not in the table."""
    if os.path.isdir(KEPT):
        return SUITES[socket.gethostname()]
    return HOST if platform.freedesktop_os_release().get("VERSION_CODENAME") == "bookworm" else None


def find_version(package: str) -> str | None:
    """Return the first two numbers of an installed package's version."""
    shown = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", package], capture_output=True, text=True, check=False
    )
    found = re.match(r"(?:\d+:)?(\d+\.\d+)", shown.stdout)
    return found[1] if found else None


def test_this_machine_is_as_the_table_has_it() -> None:
    here = find_here()
    if here:
        assert platform.python_version().startswith(f"{here.python}.")
        assert {find_version("qemu-system-x86"), find_version("slurm-client")} - {None} <= {here.qemu, here.slurm}

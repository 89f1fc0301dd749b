"""A release's packages, and a machine of tests/release that has the release's Slurm and nothing of ours; changes to it
end with the tests.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.releaselib.outside import read_apt_options, read_mirror
from tests.releaselib.root import ensure_root
from tests.releaselib.suites import ROOT, SUITES, Place, Suite
from tests.waiting import limit

_RUN = """
import os, sys
from pathlib import Path
from tests.releaselib import machine
from tests.releaselib.suites import SUITES, Place
sys.exit(machine.run(SUITES[sys.argv[1]], Place(Path(sys.argv[2])), sys.argv[3:], os.environ))
"""
_PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "python3-minimal", "ca-certificates", "mount", "procps", "psmisc")
# no service starts by itself: the tests start those that they need
_NO_SERVICES = """printf '#!/bin/sh\\nexit 101\\n' >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d" """


def render_argv(suite: Suite) -> list[str]:
    """Return the command that makes the root as `new` in the current directory."""
    sources = "\n".join(f"deb {read_mirror()} {name} main" for name in (suite.name, *suite.also))
    pins = f'printf %s {shlex.quote(suite.pins)} >"$1/etc/apt/preferences.d/release"'
    options = ['APT::Install-Recommends "false"', 'Acquire::Languages "none"', *read_apt_options()]
    return [
        "mmdebstrap", "--mode=root", "--variant=apt", *(f"--aptopt={option}" for option in options), "--dpkgopt=force-unsafe-io",
        f"--essential-hook={pins}", f"--essential-hook={_NO_SERVICES}", f"--include={','.join(_PACKAGES)}",
        "--skip=check/empty,cleanup/apt", suite.name, "new", sources,
    ]  # fmt: skip


@dataclass(frozen=True)
class Built:
    """The packages of a release by name, what lintian(1) says of them, and what RPMs of the same names have and require."""

    files: dict[str, Path]
    lintian: str
    rpms: dict[str, tuple[list[str], list[str]]]


class Machine:
    """The machine: what a command leaves on its disk is there for the next one; processes and /run end with each command."""

    def __init__(self, suite: Suite, place: Place) -> None:
        self.suite, self.place = suite, place

    def try_run(self, script: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a bash script as root; what it prints on both streams is returned as one text."""
        argv = [sys.executable, "-c", _RUN, self.suite.name, str(self.place.path), "bash", "-uc", script]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.run(argv, cwd=ROOT, text=True, timeout=limit(seconds), check=False, **pipes)

    def run(self, script: str, seconds: float = 120) -> str:
        """Run a script that ends at its first failure; it must not have one. Return what it has printed."""
        done = self.try_run(f"set -e\n{script}", seconds)
        assert done.returncode == 0, f"{script}\nended with status {done.returncode}:\n{done.stdout}"
        return done.stdout

    def copy(self, *files: Path) -> str:
        """Copy files into the machine, and return the directory in which they are there."""
        target = self.place.root / "srv/files"
        target.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, target)
        return "/srv/files"


@cache
def ensure_clean_root(name: str) -> Path:
    """Return the clean root of a release, which is made once and kept; from now on only this process may use it."""
    kept = Place(ROOT / "build/packages-roots" / name)
    kept.lock()
    ensure_root(SUITES[name], kept, False, render_argv(SUITES[name]))
    return kept.root


@contextmanager
def clean_machine(suite: Suite, directory: Path) -> Iterator[Machine]:
    """Make a machine whose changes go to a layer over the release's clean root."""
    lower = ensure_clean_root(suite.name)
    for name in ("root", "work", "upper"):
        (directory / name).mkdir()
    layers = f"lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", directory / "root"], check=True)
    try:
        yield Machine(suite, Place(directory))
    finally:
        subprocess.run(["umount", directory / "root"], check=True)

"""The releases, and where a checkout keeps what belongs to each."""

from __future__ import annotations

import fcntl
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "/usr/src/pcocc"  # the checkout, in the machine
KEPT = "/var/lib/pcocc-build"  # what is the checkout's build/ there: each release's own
# the tests that run when none is named: build, plugin, the main job, its streams and signals, and that nothing is left
SELECTION = ("tests/unit", "tests/lua", "tests/spank", *(f"tests/boot/test_{name}.py" for name in (
    "cluster", "streams", "signals", "bad_input", "faults", "silence", "versions", "cgroups", "network")))  # fmt: skip


class ReleaseError(Exception):
    """What went wrong, for the person at the terminal."""


class RootError(ReleaseError):
    """The release cannot be had today: that says nothing about this project's tests on it."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A release of Debian: its name, what it has, a further archive that is used, and what is taken from there (an apt
    preference).
    """

    name: str
    debian: str
    slurm: str
    python: str
    qemu: str
    also: tuple[str, ...] = ()
    pins: str = ""


SUITES = {
    suite.name: suite
    for suite in (
        Suite("bookworm", "12, with QEMU of its backports", "22.05", "3.11", "10.0", ("bookworm-backports",),
              "Package: qemu-* seabios\nPin: release n=bookworm-backports\nPin-Priority: 500\n"),
        Suite("trixie", "13", "24.11", "3.13", "10.0"),
        Suite("sid", "sid", "26.05", "3.14", "11.1"),
    )
}
PACKAGED = ("bookworm", "trixie")  # whose packages are built and tried by tests/packaging


@dataclass(frozen=True, slots=True)
class Place:
    """Where a release's root directory is, with a record of what made it, a log, and a lock."""

    path: Path

    @property
    def root(self) -> Path:
        """The root directory of the machine."""
        return self.path / "root"

    @property
    def record(self) -> Path:
        """The hash of the root's ingredients: it is there when the root is complete."""
        return self.path / "made-of"

    @property
    def log(self) -> Path:
        """What was said when it was made."""
        return self.path / "log"

    def lock(self) -> None:
        """Keep other processes out until this one ends; ReleaseError when another one uses the root."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReleaseError(
                f"{self.path} is in use by another command of tests/: wait for it, or name other roots by --roots DIR"
            ) from None


def say(text: str) -> None:
    """Print a line of progress, after the command's name."""
    print(f"{Path(sys.argv[0]).name}: {text}", flush=True)

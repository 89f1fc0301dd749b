"""Where a checkout keeps its node machine, and which part is made of which."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.releaselib.suites import ROOT, ReleaseError
from tests.releaselib.suites import Place as RootPlace

HERE = ROOT / "tests/machinelib"
NAME = "node"  # the machine's own, and its node's in Slurm
USERS = ("alice", "bob")


class MachineError(ReleaseError):
    """What went wrong, for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Place:
    """A directory with what is kept between runs, each part made from the one before, and with the files of a running machine."""

    path: Path

    @property
    def root(self) -> RootPlace:
        """The root directory that Debian's packages make; the QEMU that runs the machine is in it, too."""
        return RootPlace(self.path / "root")

    @property
    def disk(self) -> Path:
        """The directory with the disk that is made of the root, kernel, initrd, and the keys of ssh."""
        return self.path / "disk"

    @property
    def saved(self) -> Path:
        """The directory with the memory and the disk of a machine that has booted."""
        return self.path / "saved"

    @property
    def running(self) -> Path:
        """The directory of the machine that runs: its disk, its console, its process."""
        return self.path / "running"

    @property
    def sockets(self) -> Path:
        """A directory whose path is short enough for sockets."""
        return Path("/run") / f"pcocc-node-machine-{hashlib.sha256(str(self.path).encode()).hexdigest()[:8]}"

    def lock(self) -> None:
        """Let one command at a time change the machine; held until this process ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        fcntl.flock(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_EX)


def digest_files(paths: Iterable[Path], *words: str) -> str:
    """Return the hash of words, and of files with their names, modes, and what links say; directories stand for what is
    in them."""
    found = hashlib.sha256("\0".join(words).encode())
    for top in paths:
        for path in sorted([top, *top.rglob("*")] if top.is_dir() else [top]):
            name = f"\0{path.relative_to(top)}\0{path.lstat().st_mode:o}\0".encode()
            if path.is_symlink():
                found.update(name + os.readlink(path).encode())
            elif path.is_file() and "__pycache__" not in path.parts:
                found.update(name + path.read_bytes())
    return found.hexdigest()


def read_record(directory: Path) -> str | None:
    """Return what a directory was made of; None when it is incomplete."""
    record = directory / "made-of"
    return record.read_text() if record.exists() else None

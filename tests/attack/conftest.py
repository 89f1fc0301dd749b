"""A directory of root's for each test, with a job's in it that is Alice's."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.node import removal
from pcocc_runtime.system import tree_removal
from tests.attack.user import ALICE


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory of root's, such as /run/pcocc, with a job's in it that is Alice's."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:  # as /run, on a disk of no other's
        Path(name).chmod(0o755)
        (Path(name) / "12").mkdir(mode=0o700)
        os.chown(Path(name) / "12", ALICE, ALICE)
        yield Path(name)
        for left in (removal.SET_ASIDE, "12"):
            tree_removal.remove_tree(Path(name, left))

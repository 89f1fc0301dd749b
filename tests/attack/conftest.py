"""Fixtures: a directory of root's in which a job's directory belongs to Alice, and a node with an address."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.node import removal
from pcocc_runtime.system import tree_removal
from tests.attack.user import ALICE
from tests.netns.fabric import Node


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory of root's, such as /run/pcocc, in which a job's directory belongs to Alice."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:  # like /run: a file system that nobody else uses
        Path(name).chmod(0o755)
        (Path(name) / "12").mkdir(mode=0o700)
        os.chown(Path(name) / "12", ALICE, ALICE)
        yield Path(name)
        for left in (removal.SET_ASIDE, "12"):
            tree_removal.remove_tree(Path(name, left))


@pytest.fixture
def node() -> Iterator[Node]:
    """A node in namespaces of its own, with an address on eth0."""
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        node = Node(Path(directory), "one")
        try:
            node.run(
                "sh", "-ec",
                "ip link add eth0 type veth peer name eth1; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up",
            )
            yield node
        finally:
            node.close()

"""A pair of nodes for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.fabric import Node, connect


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    # not pytest's tmp_path: root's helper insists on directories others cannot write
    import tempfile

    with tempfile.TemporaryDirectory(dir="/root") as directory:
        pair = Node(Path(directory), "one"), Node(Path(directory), "two")
        try:
            connect(*pair)
            yield pair
        finally:
            for node in pair:
                node.close()

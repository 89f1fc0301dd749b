"""A node with an image cache, and a repository that everybody may read."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.cache import protocol
from pcocc_runtime.images.references import Repo
from tests.images.cachenode import Node


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that everybody may enter, on a real disk."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def node(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node whose service is not started yet."""
    monkeypatch.setattr(protocol, "SOCKET", root / "cache.socket")
    one = Node(root)
    yield one
    one.stop()


@pytest.fixture
def site(root: Path) -> Repo:
    """A repository that everybody may read."""
    return Repo("site", str(root / "images"))

"""What all tests share: how `make test` spreads them over two processes."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling


class ByDirectory(LoadScopeScheduling):
    """Keeps a directory's tests in one process and in their order: they share what they prepare."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("/")[1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByDirectory:
    """Return who gives the tests to the processes (xdist 3.8 finds no groups with pytest 9.2, hence not `--dist loadgroup`)."""
    return ByDirectory(config, log)

"""What all tests share: how `make test` spreads them over two processes."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling


class ByDirectory(LoadScopeScheduling):
    """Keeps a directory's tests in one process and in their order: they share what they prepare.

    Those with a QEMU of their own share nothing but the guests' images, and take long; unit tests share nothing: a
    file or a room of them is for whoever is free.
    """

    def _split_scope(self, nodeid: str) -> str:
        directory, file = nodeid.split("::")[0].split("/")[1:3]
        return f"{directory}/{file}" if directory in {"qemu", "unit"} else directory


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByDirectory:
    """Return who gives the tests to the processes (xdist 3.8 finds no groups with pytest 9.2, hence not `--dist loadgroup`)."""
    return ByDirectory(config, log)

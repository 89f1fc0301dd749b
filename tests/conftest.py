"""What all tests share: how `make test` spreads them over processes."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# half of that directory's time; they share no VMs with the rest of it, and go into a box of their own: tests/boxlib/second.py
_SECOND = ("test_auto_checkpoint", "test_checkpoint", "test_debian", "test_guide", "test_life", "test_save")


class ByDirectory(LoadScopeScheduling):
    """Keeps a directory's tests in one process and in their order: they share what they prepare.

    Those with a QEMU of their own share nothing but the guests' images, and take long; unit tests share nothing: a
    file or a room of them is for whoever is free. Those in the box are for two processes, each with a box.
    """

    def _split_scope(self, nodeid: str) -> str:
        directory, file = nodeid.split("::")[0].split("/")[1:3]
        if directory == "boot":
            return "boot in a second box" if _is_second(nodeid) else directory
        return f"{directory}/{file}" if directory in {"qemu", "unit"} else directory


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: (not item.nodeid.startswith("tests/boot/"), not _is_second(item.nodeid)))


def _is_second(nodeid: str) -> bool:
    return nodeid.startswith("tests/boot/") and nodeid.split("/")[2].split(".")[0] in _SECOND


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByDirectory:
    """Return who gives the tests to the processes (xdist 3.8 finds no groups with pytest 9.2, hence not `--dist loadgroup`)."""
    return ByDirectory(config, log)

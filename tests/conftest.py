"""What all tests share: how `make test` spreads them over processes."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_SECOND = "tests/boot/test_debian.py"  # a quarter of that directory's time: see tests/boxlib/second.py


class ByDirectory(LoadScopeScheduling):
    """Keeps a directory's tests in one process and in their order: they share what they prepare.

    Those with a QEMU of their own share nothing but the guests' images, and take long; unit tests share nothing: a
    file or a room of them is for whoever is free. A part of those in the box is for whoever has done all else: he has a
    second box, and nothing but its network from then on.
    """

    def _split_scope(self, nodeid: str) -> str:
        directory, file = nodeid.split("::")[0].split("/")[1:3]
        return f"{directory}/{file}" if directory in {"qemu", "unit"} or _is_second(nodeid) else directory


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the end what may be done in the second box."""
    items.sort(key=lambda item: _is_second(item.nodeid))


def _is_second(nodeid: str) -> bool:
    return nodeid.startswith(f"{_SECOND}::")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByDirectory:
    """Return who gives the tests to the processes (xdist 3.8 finds no groups with pytest 9.2, hence not `--dist loadgroup`)."""
    return ByDirectory(config, log)

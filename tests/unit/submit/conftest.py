"""cloud-init for all tests of this directory: the one that is installed, loaded once."""

import os

import pytest

from tests.unit.guest.cloud_python import start_cloud_python


@pytest.fixture(autouse=True)
def cloud_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put it on PATH."""
    monkeypatch.setenv("PATH", f"{start_cloud_python()}:{os.environ['PATH']}")

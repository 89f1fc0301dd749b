"""A guest of a kernel and busybox, and VMs that end with their test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.documents.cluster import Group
from tests.qemu.guests import build
from tests.qemu.saving import Home
from tests.qemu.vm import ROOT, StartVm, Vm


@pytest.fixture(scope="session")
def guest() -> Path:
    """The directory of vmlinux, vmlinuz and initrd."""
    build("kernel", ROOT / "build/guest")
    return ROOT / "build/guest"


@pytest.fixture(scope="session")
def tiny(guest: Path) -> None:
    """A disk image in the same directory, whose init applies the seed."""
    build("tiny", guest / "tiny.qcow2")


@pytest.fixture
def start(tmp_path: Path, guest: Path) -> Iterator[StartVm]:
    """Return a function that starts a VM. VM and test share tmp_path, which the VM's document calls DATA."""
    started: list[Vm] = []

    def start_vm(group: Group, **options: object) -> Vm:
        started.append(Vm(tmp_path, guest, group, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start_vm
    for vm in started:
        vm.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user with an image in a repository."""
    return Home(tmp_path)

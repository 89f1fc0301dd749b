"""Saves of VMs that run: what is saved, and what is left when something ends too early."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.qemu import saving
from tests.qemu.conftest import StartVm
from tests.qemu.saving import BASE, MEBIBYTE, Home, save


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user with an image."""
    return Home(tmp_path)


def test_a_save_is_a_revision_of_the_image(start: StartVm, home: Home) -> None:
    vm = start(home.group()).boot()
    vm.run("printf first >/dev/vda; printf far | dd of=/dev/vda bs=1M seek=40; sync")
    said = save(vm)
    assert said.splitlines()[-1].startswith("saved vm0 as user:base@1 ("), said
    vm.run("printf other >/dev/vda; sync")
    disk = saving.read_disk(home.find("base@1").path)
    assert disk[:5] == b"first" and disk[5:4096] == bytes([BASE]) * 4091 and disk[40 * MEBIBYTE :][:4] == b"far\0"
    assert home.find("base@1").path.stat().st_blocks * 512 < MEBIBYTE, "only the difference"
    assert saving.left_behind(vm) == []
    assert save(vm).splitlines()[-1].startswith("saved vm0 as user:base@2 (")
    assert saving.read_disk(home.find("base@2").path)[:5] == b"other"
    assert len(home.find("base@2").revision.layers) == 2
    assert vm.run("head -c5 /dev/vda") == "other"

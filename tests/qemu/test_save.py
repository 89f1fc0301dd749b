"""Saves of VMs that run: what is saved, where to, and what is refused."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.qemu import saving
from tests.qemu.saving import BASE, MEBIBYTE, Home, hold_copies, inside, save
from tests.qemu.vm import DATA, StartVm
from tests.waiting import limit, wait_closely


def test_a_save_is_a_revision_of_the_image(start: StartVm, home: Home) -> None:
    vm = start(home.shell()).boot()
    vm.run("printf first >/dev/vda; printf far | dd of=/dev/vda bs=1M seek=40; sync")
    said = save(vm)
    assert said.splitlines()[-1].startswith("saved vm0 as user:base@1 ("), said
    assert "note: the file systems of vm0 were not frozen" in said and "its guest runs no agent" in said
    vm.run("printf other >/dev/vda; sync")
    disk = saving.read_disk(home.find("base@1").path)
    assert disk[:5] == b"first" and disk[5:4096] == bytes([BASE]) * 4091 and disk[40 * MEBIBYTE :][:4] == b"far\0"
    assert home.find("base@1").path.stat().st_blocks * 512 < MEBIBYTE, "only the difference"
    assert saving.left_behind(vm) == []
    assert save(vm).splitlines()[-1].startswith("saved vm0 as user:base@2 (")
    assert saving.read_disk(home.find("base@2").path)[:5] == b"other"
    assert len(home.find("base@2").revision.layers) == 2
    assert vm.run("head -c5 /dev/vda") == "other" and home.leftovers() == []


def test_what_was_discarded_is_discarded(start: StartVm, home: Home) -> None:
    vm = start(home.shell()).boot()
    vm.run("blkdiscard -o 0 -l 524288 /dev/vda; sync")
    save(vm)
    disk = saving.read_disk(home.find("base@1").path)
    assert disk[:MEBIBYTE] == bytes(MEBIBYTE // 2) + bytes([BASE]) * (MEBIBYTE // 2)


@pytest.mark.parametrize("name", ["new", "site:new"])
def test_a_save_makes_a_new_image_in_any_repository(start: StartVm, home: Home, name: str) -> None:
    home.add(home.site, "other")
    vm = start(home.shell()).boot()
    vm.run("printf first >/dev/vda; sync")
    full = name if ":" in name else f"user:{name}"
    assert f"saved vm0 as {full}@0 (" in save(vm, "-d", name)
    found = home.find(full)
    assert len(found.revision.layers) == 2 and saving.read_disk(found.path)[:6] == b"first" + bytes([BASE])
    said = save(vm, "--dest", name, status=1)
    assert "has an image 'new' already" in said and saving.left_behind(vm) == []


def test_a_full_save_needs_no_other_layer(start: StartVm, home: Home) -> None:
    meta = Path(home.user.path, "meta/base@0")
    meta.write_text(
        json.dumps(
            {**json.loads(meta.read_text()), "description": "mine", "custom_meta": {"source": "https://x/y", "a": 1}}
        )
    )
    vm = start(home.shell()).boot()
    vm.run("printf first >/dev/vda; sync")
    save(vm, "--full")
    found = home.find("base@1")
    facts = {"source": "https://x/y", "a": 1, "disk": {"layer": found.path.name, "size": saving.SIZE}}
    assert found.revision.description == "mine" and found.revision.custom == facts
    disk = saving.read_disk(found.path)
    assert len(found.revision.layers) == 1 and b"backing" not in subprocess.check_output(["qemu-img", "info", found.path])
    assert disk[:5] == b"first" and disk[5:MEBIBYTE] == bytes([BASE]) * (MEBIBYTE - 5) and len(disk) == saving.SIZE
    assert saving.left_behind(vm) == []


def test_a_plain_file_needs_a_name(start: StartVm, home: Home) -> None:
    vm = start(replace(home.shell(), origin=None)).boot()
    vm.run("printf first >/dev/vda; sync")
    assert "which is not in a repository\nhint: name the new image with -d NAME" in save(vm, status=1)
    assert "all of the disk is saved" in save(vm, "-d", "new")
    assert saving.read_disk(home.find("new").path)[:6] == b"first" + bytes([BASE])


@pytest.mark.parametrize("replaced", [False, True])
def test_an_image_that_was_deleted_meanwhile(start: StartVm, home: Home, replaced: bool) -> None:
    vm = start(home.shell()).boot()
    vm.run("printf first >/dev/vda; sync")
    Path(home.user.path, "meta/base@0").unlink()
    if replaced:
        disk = home.data / "another.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "32M"], check=True)
        home.add(home.user, "base", disk)
    assert "image user:base@0, which vm0 runs from, has been deleted or replaced" in save(vm, status=1)
    save(vm, "-d", "kept")
    assert saving.read_disk(home.find("kept").path)[:6] == b"first" + bytes([BASE])
    shutil.rmtree(Path(home.user.path, "data"))  # a sound file system does not do this to a running VM
    Path(home.user.path, "data").mkdir(mode=0o777)
    said = save(vm, "-d", "again", status=1)
    assert "its layers are gone from repository 'user'\nhint: save all of the disk: --full -d NAME" in said
    assert vm.run("head -c5 /dev/vda") == "first" and saving.left_behind(vm) == []


def test_safe_insists_on_an_agent(start: StartVm, home: Home) -> None:
    vm = start(home.shell()).boot()
    said = save(vm, "--safe", status=1)
    assert "error: the file systems of vm0 cannot be frozen: its guest runs no agent\nhint: install qemu-guest-agent" in said
    assert saving.left_behind(vm) == [] and home.leftovers() == [] and list(home.revisions()) == ["user:base@0"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--drive=x"], 2, "'x' is not the number of a drive"),
        (["-d", "../x"], 1, "'../x' is not the name of an image"),
        (["-d", "new@3"], 1, "the revision of 'new@3' cannot be chosen"),
        (["-d", "nowhere:new"], 1, "there is no image repository 'nowhere'"),
        (["extra"], 2, "unrecognized arguments: extra"),
    ],
)
def test_wrong_words_are_one_sentence(start: StartVm, home: Home, words: list[str], status: int, said: str) -> None:
    vm = start(home.shell())
    saving.wait_for_monitor(vm)
    assert said in save(vm, *words, status=status)


def test_one_save_of_a_vm_at_a_time(start: StartVm, home: Home) -> None:
    vm = start(home.shell())
    saving.wait_for_monitor(vm)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(vm.directory / "save"))
        assert other.recv(100) == b'{"go": true}\n'
        assert "error: another save of vm0 is in progress" in save(vm, status=1)
    save(vm)


def test_two_vms_saved_to_one_image_are_two_revisions(start: StartVm, home: Home) -> None:
    vms = [start(home.shell(), job=job).boot() for job in (7, 8)]
    for vm in vms:
        vm.run(f"printf job{vm.job} >/dev/vda; sync")
    savers = [saving.start_save(vm, log=f"saver{vm.job}") for vm in vms]
    assert [saver.wait(limit(60)) for saver in savers] == [0, 0]
    assert {saving.read_disk(home.find(f"base@{number}").path)[:4] for number in (1, 2)} == {b"job7", b"job8"}


@pytest.mark.parametrize("how", ["owner", "mount"])
def test_a_repository_that_cannot_be_written(start: StartVm, home: Home, how: str) -> None:
    home.add(home.site, "base")
    vm = start(home.shell("site:base@0")).boot()
    site = f"{DATA}/site"
    if how == "owner":
        subprocess.run(["chown", "-R", "root:", home.site.path], check=True)
    else:
        inside(vm.process.pid, "mount", "--bind", site, site)
        inside(vm.process.pid, "mount", "-o", "remount,bind,ro", site)
    said = save(vm, status=1)
    assert f"you may not change repository 'site' ({site})" in said
    assert saving.left_behind(vm) == []
    save(vm, "-d", "mine")
    assert len(home.find("user:mine").revision.layers) == 2


def test_all_layers_are_counted_when_all_are_saved(start: StartVm, home: Home, tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "disk", "64M"], check=True)
    saving.qemu_io(tmp_path / "disk", "write 0 8M")
    home.add(home.user, "large", tmp_path / "disk")
    (tmp_path / "small").mkdir()
    vm = start(home.group("user:large@0"))
    saving.wait_for_monitor(vm)
    inside(vm.process.pid, "mount", "-t", "tmpfs", "-o", "size=6m,mode=777", "none", f"{DATA}/small")
    said = save(vm, "--full", "-d", "small:new", status=1)
    assert "the disk of vm0, with all layers, holds 8 MiB, and repository 'small' has room for 5" in said
    assert saving.left_behind(vm) == []


def test_a_full_repository(start: StartVm, home: Home, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    vm = start(home.shell()).boot()
    inside(vm.process.pid, "mount", "-t", "tmpfs", "-o", "size=50m,mode=777", "none", f"{DATA}/small")
    vm.run("dd if=/dev/urandom of=/dev/vda bs=1M count=40; sync", 60)
    there, go = hold_copies(tmp_path, "create")  # after the save has checked for room, and before it copies
    child = saving.start_save(vm, "-d", "small:new")
    wait_closely(lambda: there.exists() or child.poll() is not None)
    fill = f"dd if=/dev/zero of={DATA}/small/fill bs=1M oflag=append conv=notrunc 2>&1 || true"
    inside(vm.process.pid, "sh", "-c", fill)
    go.touch()
    said = (tmp_path / "saver").read_text() if child.wait(limit(60)) == 1 else ""
    assert f"repository 'small' ({DATA}/small/repo) is full" in said
    assert saving.left_behind(vm) == [] and vm.run("printf on >/dev/vda; head -c2 /dev/vda") == "on"
    inside(vm.process.pid, "sh", "-c", fill)  # what the save has given back
    assert "vm0 has written 40 MiB, and repository 'small' has room for" in save(vm, "-d", "small:new", status=1)
    inside(vm.process.pid, "rm", f"{DATA}/small/fill")
    save(vm, "-d", "small:new")

"""Saves of persistent drives to which the VM goes on writing: the image is the drive as it was at one moment."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.documents.cluster import Group
from tests.qemu import saving
from tests.qemu.saving import MEBIBYTE, Home, hold_copies, inside, make_drive, save
from tests.qemu.vm import APPEND, DATA, GUEST, StartVm, Vm
from tests.waiting import limit, wait_closely

# by its serial number: Linux gives letters to SCSI disks in any order
FIND = "for d in /sys/block/[sv]d*; do grep -qs disk1 $d/serial $d/device/vpd_pg80 && echo ${d##*/}; done"


def read_drive(path: Path, form: str, at: int, size: int) -> bytes:
    """Return what a drive holds."""
    whole = path.with_name(path.name + ".raw")
    subprocess.run(["qemu-img", "convert", "-U", "-f", form, "-O", "raw", path, whole], check=True)
    with whole.open("rb") as stream:
        stream.seek(at)
        return stream.read(size)


def fill(vm: Vm, mebibytes: int) -> None:
    """Have the guest write one random MiB again and again to its second disk."""
    copy = "dd if=/r of=/dev/vdb bs=1M seek=$n conv=notrunc 2>/dev/null"
    vm.run(
        f"dd if=/dev/urandom of=/r bs=1M count=1 2>/dev/null; n=0; while [ $n -lt {mebibytes} ]; do {copy}; n=$((n+1));"
        " done; sync", 60,
    )


@pytest.mark.parametrize(("model", "form"), [("virtio", "raw"), ("virtio-scsi", "qcow2"), ("ide", "raw")])
def test_a_drive_is_saved_as_it_was_at_one_moment(start: StartVm, home: Home, model: str, form: str) -> None:
    drive = make_drive(home, form)
    vm = start(home.shell(persistent=(drive,), disk_model=model)).boot()
    device = f"/dev/{vm.run(FIND).strip()}"
    vm.run(f"printf before >{device}; sync")
    there, go = hold_copies(home.data)
    child = saving.start_save(vm, "-d", "kept", "--drive=1")
    wait_closely(there.exists)
    vm.run(f"printf after2 >{device}; printf later | dd of={device} bs=1M seek=40; sync; echo 3 >/proc/sys/vm/drop_caches")
    assert vm.run(f"head -c6 {device}") == "after2"
    assert read_drive(home.data / "drive", form, 0, 6) == b"after2", "what the guest writes is on the drive at once"
    go.touch()
    assert child.wait(limit(60)) == 0, (home.data / "saver").read_text()
    said = (home.data / "saver").read_text()
    assert (
        said.splitlines()[-1].startswith("saved vm0 as user:kept@0 (")
        and "note: the file systems of vm0 were not frozen" in said
    )
    found = home.find("kept")
    disk = saving.read_disk(found.path)
    assert disk[:8] == b"before" + bytes([7, 7]) and disk[MEBIBYTE:] == bytes(63 * MEBIBYTE)
    assert len(found.revision.layers) == 1 and found.revision.custom["source"] == f"drive 1, {DATA}/drive, of vm0 of job 7"
    assert found.path.stat().st_blocks * 512 < 4 * MEBIBYTE and saving.left_behind(vm) == []
    vm.run(f"printf again >{device}; sync")
    save(vm, "-d", "later", "--drive=1")
    save(vm, "-d", "boot")
    assert saving.read_disk(home.find("later").path)[:6] == b"again2" and home.leftovers() == []
    vm.terminate()
    vm.wait(60)
    assert read_drive(home.data / "drive", form, 40 * MEBIBYTE, 5) == b"later"


def test_a_save_while_the_guest_writes_misses_nothing_of_before_and_has_nothing_of_after(start: StartVm, home: Home) -> None:
    vm = start(home.shell(persistent=(make_drive(home),))).boot()
    fill(vm, 60)
    writer = (
        "n=0; while :; do n=$((n+1)); printf %08d $n | dd of=/dev/vdb bs=512 seek=$((n*64)) conv=fsync 2>/dev/null;"
        " echo $n >/n; done"
    )
    vm.run(f": >/n; echo '{writer}' >/w.sh; sh /w.sh >/dev/null 2>&1 &")
    wait_closely(lambda: int(vm.run("cat /n").strip() or 0) > 5)
    before = int(vm.run("cat /n"))
    save(vm, "-d", "kept", "--drive=1")
    after = int(vm.run("cat /n"))
    assert after > before, "the guest went on"
    disk = saving.read_disk(home.find("kept").path)
    records = [disk[32768 * number :][:8] == b"%08d" % number for number in range(1, after + 10)]
    held = records.index(False)
    assert not any(records[held:]) and before <= held <= after + 1


def test_what_cannot_be_saved_is_said(start: StartVm, home: Home) -> None:
    drive = make_drive(home)
    vm = start(home.shell(persistent=(drive,)))
    saving.wait_for_monitor(vm)
    said = save(vm, "--drive=1", status=1)
    assert (
        f"drive 1 of vm0 is the persistent drive {DATA}/drive, which belongs to no image\nhint: name the new image with"
        " -d NAME"
        in said
    )
    assert "vm0 has no drive 2\nhint: its drives are 0 to 1" in save(vm, "--drive", "2", status=1)
    assert "has an image 'base' already" in save(vm, "--drive=1", "-d", "base", status=1)
    assert "cannot be frozen: its guest runs no agent" in save(vm, "--drive=1", "-d", "new", "--safe", status=1)
    assert saving.left_behind(vm) == [] and home.leftovers() == [] and list(home.revisions()) == ["user:base@0"]


@pytest.mark.parametrize("mmp", ["cluster", "no"])
def test_a_drive_that_others_may_write_to(start: StartVm, home: Home, mmp: str) -> None:
    shared = replace(make_drive(home), mmp=mmp)
    vm = start(Group("t", 1, persistent=(shared,), kernel=f"{GUEST}/vmlinux", initrd=f"{GUEST}/initrd", append=APPEND))
    saving.wait_for_monitor(vm)
    said = save(vm, "-d", "new", status=1 if mmp == "cluster" else 0)
    words = "is shared by VMs (mmp: cluster)" if mmp == "cluster" else "note: drive 0 of vm0, the persistent drive"
    assert words in said and saving.left_behind(vm) == []
    assert mmp == "cluster" or saving.read_disk(home.find("new").path)[:MEBIBYTE] == bytes([7]) * MEBIBYTE


def test_a_full_scratch_ends_the_save_and_not_the_guest(start: StartVm, home: Home) -> None:
    vm = start(home.shell(persistent=(make_drive(home),)), scratch_size="24m").boot()
    fill(vm, 60)
    there, go = hold_copies(home.data)
    child = saving.start_save(vm, "-d", "kept", "--drive=1")
    wait_closely(there.exists)
    fill(vm, 48)
    go.touch()
    said = (home.data / "saver").read_text() if child.wait(limit(60)) == 1 else ""
    assert "error: drive 1 of vm0 could not be read completely: " in said and f"than fits into {DATA}/scratch/pcocc/7" in said
    assert "Traceback" not in said and list(home.revisions()) == ["user:base@0"] and home.leftovers() == []
    wait_closely(lambda: saving.left_behind(vm) == [])
    assert (
        vm.run(
            "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vdb bs=1M skip=47 count=1 2>/dev/null | cmp - /r && echo same"
        )
        == "same\n"
    )
    assert "disk-error" not in [event["event"] for event in vm.events()]


def test_a_full_repository(start: StartVm, home: Home) -> None:
    (home.data / "small").mkdir()
    vm = start(home.shell(persistent=(make_drive(home),))).boot()
    inside(vm.process.pid, "mount", "-t", "tmpfs", "-o", "size=20m,mode=777", "none", f"{DATA}/small")
    fill(vm, 40)
    assert "drive 1 of vm0 holds 40 MiB, and repository 'small' has room for" in save(
        vm, "-d", "small:new", "--drive=1", status=1
    )
    assert saving.left_behind(vm) == []


def test_a_vm_that_ends_while_its_drive_is_saved(start: StartVm, home: Home) -> None:
    vm = start(home.shell(persistent=(make_drive(home),))).boot()
    there, go = hold_copies(home.data)
    child = saving.start_save(vm, "-d", "kept", "--drive=1")
    wait_closely(there.exists)
    vm.process.kill()
    vm.wait()
    go.touch()
    assert child.wait(limit(60)) == 1
    assert "error: vm0 has ended" in (home.data / "saver").read_text()
    assert list(home.revisions()) == ["user:base@0"] and home.leftovers() == []


def test_a_saver_killed_at_any_step_leaves_the_drive_to_its_guest(start: StartVm, home: Home) -> None:
    vm: Vm = start(home.shell(persistent=(make_drive(home),))).boot()
    step = 0
    while (status := saving.start_save(vm, "--drive=1", "-d", f"kept{step}", die_at=step).wait(limit(60))) != 0:
        assert status in (-signal.SIGKILL, 128 + signal.SIGKILL), (step, (home.data / "saver").read_text())
        wait_closely(lambda: saving.left_behind(vm) == [])
        text = f"{step:04}"
        vm.run(f"printf {text} | dd of=/dev/vdb bs=512 seek={step} conv=fsync")
        assert read_drive(home.data / "drive", "raw", 512 * step, 4) == text.encode()
        step += 1
    assert step > 40
    disk = saving.read_disk(home.find(f"kept{step}").path)
    assert [disk[512 * place :][:4] for place in range(step)] == [b"%04d" % place for place in range(step)]
    save(vm)
    assert home.leftovers() == []

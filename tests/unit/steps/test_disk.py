"""Drives of a running VM: a real QEMU without a guest gets them and gives them back, and their locks are QEMU's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.cluster import Group
from pcocc_runtime.documents.command_line import COMMAND_FILE, encode_command_line
from pcocc_runtime.documents.disks import DISKS_FILE, encode_disks
from pcocc_runtime.documents.vm import DRIVES_FILE
from pcocc_runtime.errors import NodeError, PcoccError
from pcocc_runtime.qemu.disks import Disk
from pcocc_runtime.qemu.hot_drives import plan_node, plan_set
from pcocc_runtime.qemu.plugs import plan_plugs
from pcocc_runtime.steps import disk
from pcocc_runtime.steps.disk import check_words, drive_of, read_attached
from pcocc_runtime.steps.qemu import Monitor
from pcocc_runtime.system import drive_locks
from tests.waiting import wait_for

JOB = 7
SCSI = ("-device", "virtio-scsi-pci,id=scsi,num_queues=1")
Start = Callable[..., Path]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts the QEMU of vm0 with these words, and returns its directory."""
    directory, children = tmp_path / "job/vm0", []
    directory.mkdir(parents=True)
    (tmp_path / "conf").mkdir()
    monkeypatch.setenv("PCOCC_SYSTEM_CONF_DIR", str(tmp_path / "conf"))
    monkeypatch.setattr("pcocc_runtime.steps.host_path.site_dir", lambda _environ, _uid: str(tmp_path / "conf"))
    monkeypatch.setattr(naming, "job_dir", lambda _job: tmp_path / "job")
    (directory / DISKS_FILE).write_bytes(encode_disks(Group("t", 1), [Disk("/boot.qcow2")], str(tmp_path)))

    def run(*words: str) -> Path:
        argv = [
            "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35", "-m", "32", "-accel", "tcg",
            "-chardev", f"socket,id=qmp,path={directory}/qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
            *words,
        ]  # fmt: skip
        (directory / COMMAND_FILE).write_text(encode_command_line(argv).decode())
        children.append(subprocess.Popen(argv))
        wait_for(lambda: (directory / "qmp").exists(), "QEMU's monitor")
        return directory

    yield run
    for child in children:
        child.kill()
        child.wait()


@pytest.fixture
def drive(tmp_path: Path) -> str:
    """A raw drive."""
    path = tmp_path / "drive"
    path.write_bytes(bytes(1 << 20))
    return str(path)


def run(*words: str) -> int:
    return disk.operate(JOB, "vm0", check_words(words))


def is_locked(path: str, job: int = 99) -> str:
    try:
        fd = drive_locks.lock_drive(path, "yes", job)
    except NodeError as error:
        return error.message
    assert fd is not None
    os.close(fd)
    return ""


def test_a_drive_comes_and_goes_with_its_lock(start: Start, drive: str, capsys: pytest.CaptureFixture[str]) -> None:
    directory = start(*SCSI)
    assert run("attach", drive) == 0 and capsys.readouterr().out == f"vm0: disk1 is {drive}\n"
    assert is_locked(drive) == f"the drive {drive} is in use by a VM of job {JOB}" and (directory / DRIVES_FILE).exists()
    with pytest.raises(PcoccError, match=r"has the drive .* already"):
        run("attach", drive)
    assert run("list") == 0
    assert capsys.readouterr().out == f"vm0: disk0 is /boot.qcow2, since its boot\nvm0: disk1 is {drive}, attached\n"
    assert run("detach", "disk1") == 0 and capsys.readouterr().out == "vm0: disk1 is detached\n"
    assert not is_locked(drive) and not (directory / DRIVES_FILE).exists()
    with pytest.raises(PcoccError, match="was not given a drive 'disk1'"):
        run("detach", "disk1")
    assert run("attach", drive) == 0 and run("detach", drive) == 0


def test_ports_are_used_up_and_free_again(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(*plan_plugs("q35", 0, ()))
    drives = [str(tmp_path / f"drive{number}") for number in range(5)]
    for one in drives:
        Path(one).write_bytes(bytes(1 << 20))
    assert run("attach", *drives[:4]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["disk1", "disk2", "disk3", "disk4"]
    with pytest.raises(PcoccError, match="has no room for more"):
        run("attach", drives[4])
    assert not is_locked(drives[4]) and all(map(is_locked, drives[:4]))


def test_a_vm_without_ports_or_with_ide_says_so(start: Start, drive: str) -> None:
    directory = start()
    with pytest.raises(PcoccError, match="takes no devices while it runs"):
        run("attach", drive)
    (directory / COMMAND_FILE).write_text(encode_command_line(["qemu", "-device", "ide-hd,bus=ide.0"]).decode())
    with pytest.raises(PcoccError, match="has IDE disks"):
        run("attach", drive)
    assert not is_locked(drive)


def test_a_drive_of_another_vm_is_refused_and_its_job_named(start: Start, drive: str) -> None:
    start(*SCSI)
    fd = drive_locks.lock_drive(drive, "yes", 42)
    assert fd is not None
    with pytest.raises(PcoccError, match=f"the drive {drive} is in use by a VM of job 42"):
        run("attach", drive)
    os.close(fd)
    assert run("attach", drive) == 0


def test_what_qemu_refuses_leaves_no_lock(start: Start, drive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start(*SCSI)
    monkeypatch.setattr(disk, "plan_device", lambda *_any: {"driver": "scsi-hd", "id": "disk1", "bus": "none.0"})
    with pytest.raises(PcoccError, match=r"refuses: Bus .none\.0. not found"):
        run("attach", drive)
    assert not is_locked(drive)


@pytest.mark.parametrize("with_node", [True, False])
def test_what_a_killed_one_has_left_is_removed_by_the_next(start: Start, drive: str, with_node: bool) -> None:
    start(*SCSI)
    with Monitor(JOB, "vm0") as monitor:
        fd = drive_locks.lock_drive(drive, "yes", JOB)
        assert fd is not None
        monitor.say({"execute": "add-fd", "arguments": plan_set("disk1", drive)}, fd=fd)
        os.close(fd)
        if with_node:
            monitor.command("blockdev-add", plan_node("disk1", drive_of(check_words(["attach", drive]).drives[0], "vm0")))
        assert [one.has_device for one in read_attached(monitor)] == [False] and is_locked(drive)
    assert run("list") == 0 and not is_locked(drive)


def test_a_guest_that_stands_still_cannot_release(start: Start, drive: str) -> None:
    start(*SCSI, "-S")
    assert run("attach", drive) == 0
    with pytest.raises(PcoccError, match=r"vm0 is stopped .*, so its guest cannot release a drive"):
        run("detach", "disk1")
    assert is_locked(drive)


def test_a_guest_that_does_not_release_keeps_the_drive(start: Start, drive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start(*SCSI)
    assert run("attach", drive) == 0
    monkeypatch.setattr("pcocc_runtime.steps.plugging.has_device", lambda *_any: True)
    with pytest.raises(PcoccError, match="has not released disk1 within 1 s"):
        run("detach", "--time=1", "disk1")


@pytest.mark.parametrize("content", [b"QFI\xfb".ljust(4096, b"\0"), None])
def test_a_file_that_is_no_such_drive_is_refused(start: Start, tmp_path: Path, content: bytes | None) -> None:
    start(*SCSI)
    path = tmp_path / "other"
    if content:
        path.write_bytes(content)
    with pytest.raises(PcoccError, match="would be used as a raw one" if content else "cannot be read"):
        run("attach", str(path))


def test_a_site_limits_the_paths(start: Start, drive: str, tmp_path: Path) -> None:
    start(*SCSI)
    (tmp_path / "conf/pcocc.yaml").write_text("users-may-set: {host-paths: [/elsewhere/*]}\n")
    with pytest.raises(PcoccError, match="may not be given to VMs at this site"):
        run("attach", drive)
    (tmp_path / "conf/pcocc.yaml").write_text(f"users-may-set: {{host-paths: [{tmp_path}]}}\n")
    assert run("attach", drive) == 0


@pytest.mark.parametrize(
    "words",
    [[], ["attach"], ["attach", "relative"], ["detach"], ["detach", "--time=0", "disk1"], ["detach", "--time=1"], ["list", "x"]],
)
def test_words_that_make_no_sense_are_refused(words: list[str]) -> None:
    with pytest.raises(PcoccError) as caught:
        check_words(words)
    assert caught.value.hint

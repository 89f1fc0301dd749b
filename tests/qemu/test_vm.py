"""VMs that really run: what a template says is what guest and host see."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.documents.cluster import Drive, Group, Mount
from pcocc_runtime.system.watch import is_abandoned
from tests.qemu.vm import APPEND, DATA, GUEST, PROMPT, StartVm
from tests.waiting import limit, wait_closely

MEBIBYTE = 1 << 20


def make_drive(directory: Path, name: str = "drive") -> str:
    """Make a drive of the user's, and return its path in the VM's document."""
    with (directory / name).open("wb") as stream:
        stream.truncate(4 * MEBIBYTE)
    os.chown(directory / name, 1, 1)
    return f"{DATA}/{name}"


@pytest.mark.parametrize("kind", ["9p", "virtiofs"])
def test_a_directory_is_the_users_inside_and_outside(start: StartVm, tmp_path: Path, kind: str) -> None:
    for name, uid, gid, mode in (("mine", 1, 1, 0o755), ("foreign", 0, 0, 0o700), ("group", 0, 1, 0o770)):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, uid, gid)
        (tmp_path / name).chmod(mode)
    (tmp_path / "mine/old").write_text("old\n")
    mounts = (Mount("rw", DATA, kind), Mount("ro", DATA, kind, readonly=True))
    vm = start(Group("t", 1, mounts=mounts)).boot()
    options = "-o trans=virtio,version=9p2000.L" if kind == "9p" else ""
    vm.run("echo 'me:x:1:1::/:/bin/sh' >>/etc/passwd; mkdir /rw /ro")
    for tag in ("rw", "ro"):
        assert vm.run(f"mount -t {kind} {options} {tag} /{tag}; echo $?") == "0\n"
    root = "0:0" if kind == "9p" else "65534:65534"  # virtiofsd knows nobody but the user
    assert vm.run("cat /rw/mine/old; stat -c %u:%g /rw/mine/old /rw/mine") == f"old\n{root}\n1:1\n"
    me = "su me -c"
    assert (
        vm.run(
            f"{me} 'echo new >/rw/mine/new; mkdir /rw/mine/d; ln -s x /rw/mine/l; mv /rw/mine/new /rw/mine/d; cat"
            " /rw/mine/d/new'"
        )
        == "new\n"
    )
    assert vm.run("echo root >/rw/mine/root; stat -c %u /rw/mine/d/new; echo $?").splitlines()[:1] == ["1"]
    assert vm.run(f"{me} 'echo g >/rw/group/g'; echo $?") == "0\n"
    assert "denied" in vm.run("ls /rw/foreign; echo x >/rw/foreign/x") and not (tmp_path / "foreign/x").exists()
    for command in (
        "echo x >/ro/mine/x", "rm /ro/mine/old", "mount -o remount,rw /ro; mkdir /ro/mine/y", "chmod 777 /ro/mine/old",
    ):
        assert "Read-only" in vm.run(command), command
    assert {path.name: path.lstat().st_uid for path in (tmp_path / "mine").rglob("*")} == {
        "old": 0, "d": 1, "new": 1, "l": 1, "root": 1,
    }
    assert (tmp_path / "group/g").stat().st_uid == 1
    vm.process.kill()
    vm.wait()
    if kind == "virtiofs":
        wait_closely(lambda: not virtiofsd_of(tmp_path))


@pytest.mark.usefixtures("tiny")
def test_directories_are_mounted_and_the_command_user_is_there_after_the_boot(start: StartVm, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    mounts = (Mount("data", DATA, "virtiofs"), Mount("kept", DATA, "virtiofs", readonly=True))
    vm = start(Group("t", 1, image=f"{GUEST}/tiny.qcow2", mounts=mounts, command_user="worker"))
    vm.boot(b"READY vm0")
    assert vm.run("cat /mnt/data/file") == "content\n" and "Read-only" in vm.run("echo x >/mnt/kept/x")
    assert (
        vm.run("id -un worker; stat -c %U /home/worker/.ssh/authorized_keys /home/worker/.ssh/id_ed25519")
        == "worker\nworker\nworker\n"
    )


def virtiofsd_of(data: Path) -> list[str]:
    """Return the virtiofsd processes that serve this test's directory, by their mounts."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text() == "virtiofsd\n" and str(data) in (process / "mountinfo").read_text():
                found.append(process.name)
        except OSError:
            continue
    return found


def test_a_guest_powers_off_before_its_drives_are_let_go(start: StartVm, tmp_path: Path) -> None:
    drive = Drive(make_drive(tmp_path))
    vm = start(Group("t", 1, persistent=(drive,), initrd=f"{GUEST}/initrd", kernel=f"{GUEST}/vmlinux", append=APPEND)).boot()
    vm.run("echo 'printf last-words | dd of=/dev/vda bs=512 seek=3' >/etc/last")
    second = start(Group("t", 1, persistent=(drive,)), job=8)
    assert second.wait() == 1
    assert f"the drive {DATA}/drive is in use by a VM of job 7" in second.said() and "hint: " in second.said()
    vm.terminate()
    assert vm.wait() == 0
    assert (tmp_path / "drive").read_bytes()[1536:1546] == b"last-words"
    assert vm.events()[-1]["reason"] == "guest-shutdown" and vm.events()[-1]["asked"] is True


def test_a_guest_that_does_not_power_off_is_ended_in_time(start: StartVm, tmp_path: Path) -> None:
    vm = start(Group("t", 1, persistent=(Drive(make_drive(tmp_path)),)), grace=2).boot()
    vm.run("echo 'sleep 60' >/etc/last; printf flushed | dd of=/dev/vda; sync")
    begin = time.monotonic()
    vm.terminate()
    assert vm.wait() == 0
    assert 1.5 < time.monotonic() - begin < limit(10)
    assert [event["event"] for event in vm.events()][-2:] == ["still-on", "ended"]
    assert (tmp_path / "drive").read_bytes()[:7] == b"flushed"


def test_a_killed_vm_leaves_no_lock(start: StartVm, tmp_path: Path) -> None:
    group = Group("t", 1, persistent=(Drive(make_drive(tmp_path)),))
    vm = start(group)
    wait_closely(vm.events)
    vm.process.kill()
    vm.wait()
    next_vm = start(group, job=8)
    wait_closely(next_vm.events)


@pytest.mark.parametrize(
    ("first", "second", "job", "works"),
    [("cluster", "cluster", 7, True), ("cluster", "cluster", 8, False), ("cluster", "yes", 7, False),
     ("yes", "cluster", 7, False),
     ("no", "no", 8, True)],
)  # fmt: skip
def test_who_may_share_a_drive(start: StartVm, tmp_path: Path, first: str, second: str, job: int, works: bool) -> None:
    path = make_drive(tmp_path)
    one = start(Group("t", 1, persistent=(Drive(path, mmp=first),)))
    wait_closely(one.events)
    (tmp_path / "log7").rename(tmp_path / "first")
    one.log = tmp_path / "first"
    other = start(Group("t", 1, persistent=(Drive(path, mmp=second),)), job=job)
    if works:
        wait_closely(other.events)
    else:
        assert other.wait() == 1
        assert "is in use by a VM of " + ("this job" if job == 7 else "job 7") in other.said()


def keeper_of(data: Path) -> int:
    """Return the keeper of the VM that shares this test's directory, by its mounts."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"launcher.py\0keeper" in (process / "cmdline").read_bytes() and str(data) in (process / "mountinfo").read_text():
                return int(process.name)
        except OSError:
            continue
    return 0


def test_a_vm_is_watched_until_its_keeper_is_killed_and_not_by_its_qemu(start: StartVm, tmp_path: Path) -> None:
    vm = start(Group("t", 1))
    keeper = wait_closely(lambda: keeper_of(tmp_path))
    assert not is_abandoned(vm.directory)
    os.kill(keeper, signal.SIGKILL)
    wait_closely(lambda: is_abandoned(vm.directory))
    assert vm.process.poll() is None


def test_a_full_scratch_stops_the_vm_with_a_word(start: StartVm, tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "image", "64M"], check=True)
    group = Group("t", 1, image=f"{DATA}/image", kernel=f"{GUEST}/vmlinux", initrd=f"{GUEST}/initrd", append=APPEND,
                  disk_cache="none")
    vm = start(replace(group, persistent=(Drive(make_drive(tmp_path)),)), scratch_size="6m").boot()
    assert vm.console is not None
    vm.console.sendall(b"dd if=/dev/urandom of=/dev/vda bs=1M count=32\n")
    wait_closely(lambda: any(event["event"] == "disk-error" for event in vm.events()))
    told = next(event for event in vm.events() if event["event"] == "disk-error")
    assert told["reason"] == "the file system of its disk is full" and str(told["disk"]).endswith("vm0.qcow2")
    vm.terminate()  # it cannot power off by itself, and nobody waits for that
    assert vm.wait() == 0 and "still-on" not in [event["event"] for event in vm.events()]


def test_what_was_stopped_by_a_full_scratch_goes_on_with_nothing_lost(start: StartVm, tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "image", "64M"], check=True)
    group = Group(
        "t", 1, image=f"{DATA}/image", kernel=f"{GUEST}/vmlinux", initrd=f"{GUEST}/initrd", append=APPEND,
        disk_cache="none",
    )
    vm = start(group, scratch_size="6m").boot()
    assert vm.console is not None
    vm.console.sendall(
        b"dd if=/dev/urandom of=/noise bs=1M count=16; md5sum </noise >/sum; dd if=/noise of=/dev/vda bs=1M; sync\n"
    )
    wait_closely(lambda: any(event["event"] == "disk-error" for event in vm.events()), vm.said, 60)
    subprocess.run(
        [
            "nsenter", f"--target={vm.process.pid}", "--mount", "mount", "-o", "remount,size=64m",
            f"{DATA}/scratch/pcocc/7",
        ],
        check=True,
    )
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(vm.directory / "qmp"))
        monitor.sendall(b'{"execute": "qmp_capabilities"}{"execute": "cont"}')
        vm._read_to(PROMPT, 60)
    assert vm.run(
        "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M count=16 2>/dev/null | md5sum | cmp - /sum && echo same"
    ).endswith("same\n")
    with open(f"/proc/{vm.process.pid}/root{DATA}/scratch/pcocc/7/vm0.qcow2", "rb") as overlay:
        vm.terminate()
        vm.wait()
        (tmp_path / "kept").write_bytes(overlay.read())
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", tmp_path / "kept"], check=True)
    check = subprocess.run(["qemu-img", "check", "-f", "qcow2", tmp_path / "kept"], capture_output=True, text=True, check=False)
    assert "No errors" in check.stdout, check


@pytest.mark.parametrize("size", ["4k", "64k"])
def test_a_scratch_that_is_full_from_the_start_is_one_sentence(start: StartVm, tmp_path: Path, size: str) -> None:
    image = Group("t", 1, image=f"{DATA}/image", firmware="uefi")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "image", "64M"], check=True)
    vm = start(image, scratch_size=size)
    assert vm.wait() == 1
    lines = vm.said().splitlines()
    assert lines[0].startswith("pcocc: error: vm0 on here: the ") and "is full" in lines[0], lines
    assert lines[1].startswith("hint: free space there") and len(lines) == 2, lines


def test_uefi_has_variables_of_its_own(start: StartVm, tmp_path: Path) -> None:
    vm = start(Group("t", 1, firmware="uefi")).boot()
    assert vm.run("ls -d /sys/firmware/efi") == "/sys/firmware/efi\n"
    template = Path("/usr/share/OVMF/OVMF_VARS_4M.fd").read_bytes()
    own = (tmp_path / "scratch/pcocc/7/vm0.vars.fd").read_bytes()
    assert len(own) == len(template) and own != template


@pytest.mark.parametrize(("kind", "greeting"), [("vnc", b"RFB 003.008\n"), ("spice", None)])
def test_a_display_is_a_socket_of_the_users(start: StartVm, kind: str, greeting: bytes | None) -> None:
    vm = start(Group("t", 1, display=kind))
    path = wait_closely(lambda: vm.directory.exists() and next(iter(vm.directory.glob(kind)), None))
    assert isinstance(path, Path) and path.stat().st_uid == 1 and path.parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as viewer:
        viewer.settimeout(limit(10))
        viewer.connect(str(path))
        if greeting is None:  # SpiceLinkHeader and SpiceLinkMess of the main channel, version 2.2
            viewer.sendall(b"REDQ" + struct.pack("<III", 2, 2, 18) + struct.pack("<IBBIII", 0, 1, 0, 0, 0, 18))
            assert viewer.recv(4) == b"REDQ"
        else:
            assert viewer.recv(len(greeting)) == greeting


def test_cpus_kept_for_qemu_are_not_the_guests(start: StartVm) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    assert len(cpus) > 1, "this test needs two CPUs"
    vm = start(Group("t", 1, cpus=len(cpus), emulator_cores=1)).boot()
    assert vm.run("grep -c ^processor /proc/cpuinfo") == f"{len(cpus) - 1}\n"
    threads = {
        (path / "comm").read_text().strip(): os.sched_getaffinity(int(path.name))
        for path in Path(f"/proc/{vm.process.pid}/task").iterdir()
    }
    vcpus = {name: own for name, own in threads.items() if name.startswith("CPU ")}
    assert [vcpus[name] for name in sorted(vcpus)] == [{cpu} for cpu in cpus[1:]]
    assert threads["qemu-system-x86"] == {cpus[0]}


@pytest.mark.parametrize(
    ("group", "said"),
    [
        (Group("t", 1, mounts=(Mount("d", f"{DATA}/gone"),)), f"mount 'd': directory {DATA}/gone cannot be read: No such file"),
        (Group("t", 1, mounts=(Mount("d", f"{DATA}/private", "virtiofs"),)),
         f"directory {DATA}/private cannot be read: Permission denied"),
        (Group("t", 1, kernel=f"{DATA}/gone"), f"kernel {DATA}/gone cannot be read: No such file"),
        (Group("t", 1, persistent=(Drive(f"{DATA}/gone"),)), f"the drive {DATA}/gone cannot be written here: No such file"),
        (Group("t", 1, emulator_cores=1), "emulator-cores: 1 of template 't' leaves none of the 1 CPUs to the guest"),
        (Group("t", 1, firmware="uefi", machine="isapc"), "this node has no UEFI firmware for machine isapc"),
        (Group("t", 1, qemu_bin=f"{DATA}/gone"), f"{DATA}/gone is not installed"),
    ],
)  # fmt: skip
def test_what_the_node_lacks_is_one_sentence(start: StartVm, tmp_path: Path, group: Group, said: str) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    vm = start(group)
    assert vm.wait() == 1
    lines = vm.said().splitlines()
    assert said in lines[0] and lines[0].startswith("pcocc: error: vm0 on here: ") and len(lines) <= 2

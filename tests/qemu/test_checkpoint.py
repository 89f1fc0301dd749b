"""A VM is stored and goes on in another job: with its memory and its disk; and it is refused where something has changed."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.documents.checkpoint import Checkpoint, StoredFile, encode_checkpoint
from pcocc_runtime.system.copy import hash_file
from pcocc_runtime.system.saver_connection import SaverConnection
from tests.qemu.saving import Home, inside, left_behind, make_drive, start_task
from tests.qemu.vm import DATA, StartVm, Vm
from tests.waiting import limit, wait_closely


class Storing:
    """The task of `@checkpoint` for one VM, whose input and output are ours."""

    def __init__(self, vm: Vm, name: str = "checkpoint") -> None:
        self.place = vm.log.parent / name
        self.place.mkdir(mode=0o700)
        os.chown(self.place, 1, 1)
        self.child = start_task(vm, "@checkpoint", f"{DATA}/{name}")

    def hear(self) -> str:
        """Return the next line that the task prints, except those about its progress."""
        assert self.child.stdout is not None
        while (line := self.child.stdout.readline()).startswith(b"far "):
            pass
        return line.decode().strip()

    def say(self, line: str) -> None:
        """Send the task a line."""
        assert self.child.stdin is not None
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()

    def store(self, last: str = "keep") -> Path:
        """Have the VM stored completely, as `pcocc checkpoint` does; return the directory."""
        assert self.hear() == "paused vm0", self.explain()
        self.say("store")
        assert self.hear() == "stored vm0", self.explain()
        self.say("go on" if last == "keep" else "stay")
        assert self.hear() == "summed vm0", self.explain()
        seal(self.place)
        self.say(last)
        assert last == "hold" or self.end() == 0, self.explain()
        return self.place

    def end(self) -> int:
        """Wait for its end; return its exit status."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        return self.child.wait(limit(60))

    def explain(self) -> str:
        """Return what the task has printed on stderr."""
        assert self.child.stderr is not None
        self.child.kill()
        self.child.wait()
        return self.child.stderr.read().decode()


def seal(place: Path) -> None:
    """Write the file that makes a directory a checkpoint."""
    files = [StoredFile(one.name, one.stat().st_size, hash_file(one, lambda done, total: None))
             for one in sorted(place.iterdir()) if one.suffix == ".json" or one.name == "boot"]
    (place / "checkpoint.json").write_bytes(encode_checkpoint(Checkpoint(7, 1, 1, tuple(files))))


def stands_still(vm: Vm) -> bool:
    """Ask the guest's shell for something in its memory.

    Return whether it is silent for now; `vm.read` gets the answer later.
    """
    assert vm.console is not None
    vm.console.sendall(b"echo $mark\n")
    return not select.select([vm.console], [], [], 0.5)[0]


@pytest.fixture
def storing(start: StartVm, home: Home) -> Iterator[Callable[[Vm], Storing]]:
    """Return a function that begins to store a VM; its pipes are closed after the test."""
    begun: list[Storing] = []

    def begin(vm: Vm) -> Storing:
        begun.append(Storing(vm, f"checkpoint{len(begun)}"))
        return begun[-1]

    yield begin
    for one in begun:
        one.child.kill()
        one.child.wait()
        for stream in (one.child.stdin, one.child.stdout, one.child.stderr):
            assert stream is not None
            stream.close()


Begin = Callable[[Vm], Storing]
MARK = "mark=in-memory; printf on-disk | dd of=/dev/vda; sync; (while :; do echo >>/count; sleep 0.1; done) & true"


def go_on(vm: Vm) -> Vm:
    """Wait until a stored VM goes on: what is typed before that is not in its memory."""
    vm.connect()
    wait_closely(lambda: any(one["event"] == "ready" for one in vm.events()) or vm.process.poll() is not None, vm.said)
    return vm


def read_count(vm: Vm) -> int:
    return int(vm.run("wc -l </count"))


def test_a_vm_goes_on_in_another_job(start: StartVm, home: Home, storing: Begin) -> None:
    group = home.shell()
    vm = start(group).boot()
    vm.run(MARK)
    place = storing(vm).store()
    assert vm.run("echo $mark") == "in-memory\n", "it has gone on"
    vm.run("printf LATER-1 | dd of=/dev/vda; sync; mark=later")
    vm.close()
    other = go_on(start(group, job=8, restart=f"{DATA}/{place.name}"))
    count = read_count(other)
    assert other.run("echo $mark; head -c7 /dev/vda") == "in-memory\non-disk" and count > 0
    wait_closely(lambda: read_count(other) > count, "its processes to go on")
    again = storing(other).store("end")
    assert other.wait() == 0, "told to end, it has not gone on"
    third = go_on(start(group, job=9, restart=f"{DATA}/{again.name}"))
    assert third.run("echo $mark") == "in-memory\n" and read_count(third) > count


def test_the_disk_is_copied_while_the_guest_writes_again(start: StartVm, home: Home, storing: Begin) -> None:
    group = home.shell()
    vm = start(group).boot()
    vm.run(MARK)
    vm.run("head -c 40000000 /dev/urandom | dd of=/dev/vda bs=1M seek=8; sync; sum=$(md5sum </dev/vda)")
    one = storing(vm)
    assert one.hear() == "paused vm0"
    one.say("store")
    assert one.hear() == "stored vm0" and not (one.place / "vm0.disk").exists(), "the VM does not wait for that"
    one.say("go on")
    vm.run("printf LATER-1 | dd of=/dev/vda; head -c 40000000 /dev/zero | dd of=/dev/vda bs=1M seek=8; sync")
    assert one.hear() == "summed vm0", one.explain()
    seal(one.place)
    one.say("keep")
    assert one.end() == 0, one.explain()
    wait_closely(lambda: left_behind(vm) == [])
    assert vm.run("head -c7 /dev/vda") == "LATER-1"
    other = go_on(start(group, job=8, restart=f"{DATA}/{one.place.name}"))
    assert other.run("echo 3 >/proc/sys/vm/drop_caches; head -c7 /dev/vda") == "on-disk"
    assert other.run('[ "$(md5sum </dev/vda)" = "$sum" ] && echo same') == "same\n"


def test_a_vm_that_is_being_saved_is_not_stored_at_the_same_time(start: StartVm, home: Home, storing: Begin) -> None:
    vm = start(home.shell()).boot()
    with SaverConnection(f"{vm.directory}/save", "vm0"):
        one = storing(vm)
        assert one.end() == 1
        assert one.child.stderr and b"error: another save of vm0 is in progress" in one.child.stderr.read()
    assert vm.run("echo on") == "on\n"
    assert storing(vm).store().is_dir()


@pytest.mark.parametrize("moment", ["paused", "stored", "summed"])
@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_a_vm_goes_on_when_its_checkpoint_is_cut_off(start: StartVm, home: Home, storing: Begin, moment: str, how: str) -> None:
    vm = start(home.shell()).boot()
    vm.run(MARK)
    one = storing(vm)
    assert one.hear() == "paused vm0"
    if moment != "paused":
        one.say("store")
        assert one.hear() == "stored vm0"
    if moment == "summed":
        one.say("stay")
        assert one.hear() == "summed vm0"
    assert stands_still(vm)
    if how == "killed":
        one.child.kill()
        one.child.wait()
    else:
        assert one.end() == 1 and one.child.stderr
        assert b"pcocc: error: the checkpoint was interrupted" in one.child.stderr.read()
    assert vm.read() == "in-memory\n"
    count = read_count(vm)
    wait_closely(lambda: read_count(vm) > count, "its processes to go on")
    wait_closely(lambda: left_behind(vm) == [])
    assert storing(vm).store().is_dir(), "nothing is in another one's way"


@pytest.mark.parametrize("how", ["let go", "cut off", "killed"])
def test_a_vm_that_is_held_goes_on_only_when_it_is_told_to(start: StartVm, home: Home, storing: Begin, how: str) -> None:
    group = home.shell()
    vm = start(group).boot()
    vm.run(MARK)
    one = storing(vm)
    place = one.store("hold")
    assert stands_still(vm)
    if how == "let go":
        one.say("keep")
        assert one.end() == 0 and vm.read() == "in-memory\n"
        return
    if how == "killed":
        one.child.kill()
        one.child.wait()
    else:
        assert one.end() == 0
    assert vm.wait() == 0, "it is stored as it is"
    other = go_on(start(group, job=8, restart=f"{DATA}/{place.name}"))
    assert other.run("echo $mark") == "in-memory\n"


def test_a_persistent_drive_is_written_out_and_refused_when_it_was_changed_since(
    start: StartVm, home: Home, storing: Begin
) -> None:
    group = replace(home.shell(), persistent=(make_drive(home),))
    vm = start(group).boot()
    vm.run("printf first-1 | dd of=/dev/vdb conv=fsync,notrunc")
    place = storing(vm).store("end")
    assert vm.wait() == 0 and (home.data / "drive").read_bytes()[:7] == b"first-1"
    other = go_on(start(group, job=8, restart=f"{DATA}/{place.name}"))
    assert other.run("echo 3 >/proc/sys/vm/drop_caches; head -c7 /dev/vdb") == "first-1"
    other.run("printf later-1 | dd of=/dev/vdb conv=fsync,notrunc")
    again = storing(other).store("end")
    assert other.wait() == 0
    third = start(group, job=9, restart=f"{DATA}/{place.name}")
    assert third.wait(60) == 1 and third.said().count("pcocc: error:") == 1
    assert f"the persistent drive {DATA}/drive has changed since the checkpoint was made" in third.said()
    fourth = go_on(start(group, job=10, restart=f"{DATA}/{again.name}"))
    assert fourth.run("head -c7 /dev/vdb") == "later-1"


@pytest.mark.parametrize("how", ["full at once", "full later", "read-only later"])
def test_a_file_system_that_takes_no_more_is_a_sentence_and_the_vm_goes_on(
    start: StartVm, home: Home, storing: Begin, how: str
) -> None:
    vm = start(home.shell()).boot()
    vm.run(MARK)
    vm.run("head -c 8000000 /dev/urandom | dd of=/dev/vda bs=1M seek=8; sync")
    one = storing(vm)
    there = f"{DATA}/{one.place.name}"
    size = "1M" if how == "full at once" else "300M"
    inside(vm.process.pid, "mount", "-t", "tmpfs", "-o", f"uid=1,size={size}", "none", there)
    assert one.hear() == "paused vm0"
    one.say("store")
    if how != "full at once":
        assert one.hear() == "stored vm0"
        spoil = f"mount -o remount,ro {there}" if how == "read-only later" else f"! cat /dev/zero >{there}/zeros"
        inside(vm.process.pid, "sh", "-c", spoil)
        one.say("go on")
    assert one.end() == 1 and one.child.stderr
    said = one.child.stderr.read().decode()
    why = {"full at once": "the memory of vm0 could not be stored: ", "full later": ": No space left on device",
           "read-only later": ": Read-only file system"}[how]
    assert why in said and said.count("pcocc: error:") == 1 and "the VMs go on, and an older checkpoint is unchanged" in said
    assert vm.run("echo $mark") == "in-memory\n"
    wait_closely(lambda: left_behind(vm) == [])


def test_what_is_not_as_it_was_is_a_sentence(start: StartVm, home: Home, storing: Begin) -> None:
    group = home.shell()
    vm = start(group).boot()
    place = storing(vm).store("end")
    vm.wait()
    for number, (changed, said) in enumerate((
        ({"machine": "pc"}, "vm0 would differ in the machine: it was stored with"),
        ({"cpus": 2}, "the number of CPUs of vm0 was 1 when it was stored, and would be 2 now"),
        ({"disk_model": "ide"}, "vm0 would differ in a device: it was stored with"),
        ({"display": "vnc"}, "vm0 was stored with 14 devices and other parts, and would have 17 now"),
    )):
        other = start(replace(group, **changed), job=20 + number, restart=f"{DATA}/{place.name}")
        assert other.wait(60) == 1
        assert said in other.said() and other.said().count("pcocc: error:") == 1 and "hint:" in other.said()
    memory = place / "vm0.memory"
    with memory.open("r+b") as stream:
        stream.seek(memory.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
    other = start(group, job=30, restart=f"{DATA}/{place.name}")
    assert other.wait(60) == 1
    assert "vm0.memory is damaged: its content is not what was stored" in other.said()

"""What is left of a save that is killed or cancelled, or that loses its VM, the guest's agent, or the room on its disk."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pcocc_runtime.documents.save import Frozen, QemuCommand, encode_request
from pcocc_runtime.guest.agent import Agent
from pcocc_runtime.images import removing
from pcocc_runtime.save.clean import KEPT
from tests.qemu import saving
from tests.qemu.saving import MEBIBYTE, Home, inside, make_drive, save
from tests.qemu.vm import DATA, StartVm, Vm
from tests.waiting import limit, wait_closely

if TYPE_CHECKING:
    from pcocc_runtime.documents.save import SaverRequest

LARGE = 192 * MEBIBYTE


def names(home: Home) -> list[str]:
    """Return the user's revisions."""
    return sorted(path.name for path in Path(home.user.path, "meta").glob("[a-z]*"))


def begin_large_save(vm: Vm, home: Home, *words: str) -> subprocess.Popen[bytes]:
    """Start a save that takes a moment, and pause it while it copies."""
    child = saving.start_save(vm, *words)
    wait_closely(lambda: child.poll() is not None or any(Path(home.user.path, ".tmp").glob(".work-*/layer")))
    child.send_signal(signal.SIGSTOP)
    assert child.poll() is None, (vm.log.parent / "saver").read_text()
    return child


@pytest.fixture
def large(start: StartVm, home: Home) -> Vm:
    """A VM without a guest that has written much to its disk."""
    vm = start(home.group())
    saving.wait_for_monitor(vm)
    for place in range(0, LARGE, 32 * MEBIBYTE):
        line = f'qemu-io disk0 "write -P {1 + place // MEBIBYTE} {place} 32M"'
        saving.ask_qemu(vm, "human-monitor-command", **{"command-line": line})
    return vm


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user with an image of a larger disk."""
    return Home(tmp_path, size=LARGE)


def test_a_saver_killed_at_any_step_leaves_all_as_it_was(start: StartVm, home: Home) -> None:
    vm = start(home.shell()).boot()
    step, made = 0, 1
    while (status := saving.start_save(vm, die_at=step).wait(limit(60))) != 0:
        assert status in (-signal.SIGKILL, 128 + signal.SIGKILL), (step, (home.data / "saver").read_text())
        wait_closely(lambda: saving.left_behind(vm) == [])
        text = f"{step:04}"
        vm.run(f"printf {text} | dd of=/dev/vda bs=512 seek={step}")
        assert vm.run(f"dd if=/dev/vda bs=512 skip={step} count=1 2>/dev/null | head -c4") == text
        assert len(names(home)) in (made, made + 1), step
        made = len(names(home))
        step += 1
    assert step > 30 and made < 10
    found = home.find("base")
    disk = saving.read_disk(found.path)
    assert [disk[512 * place :][:4] for place in range(step)] == [b"%04d" % place for place in range(step)]
    removing.collect(home.user, 0)
    assert home.leftovers() == []
    kept = {layer for revision in range(len(names(home))) for layer in home.find(f"base@{revision}").revision.layers}
    assert {path.name for path in Path(home.user.path, "data").glob("*/*")} == kept


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_save_that_is_ended_while_it_copies(large: Vm, home: Home, number: signal.Signals) -> None:
    child = begin_large_save(large, home)
    child.send_signal(number)
    child.send_signal(signal.SIGCONT)
    status = child.wait(limit(30))
    said = (home.data / "saver").read_text()
    assert status == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number] and "Traceback" not in said
    wait_closely(lambda: saving.left_behind(large) == [])
    assert names(home) == ["base@0"]
    assert number == signal.SIGKILL or home.leftovers() == []
    removing.collect(home.user, 0)
    assert home.leftovers() == [] and len(list(Path(home.user.path, "data").glob("*/*"))) == 1
    save(large)
    assert saving.read_disk(home.find("base@1").path)[LARGE - 1] == 1 + (LARGE - 32 * MEBIBYTE) // MEBIBYTE


def test_a_vm_that_is_killed_while_it_is_saved_is_saved(large: Vm, home: Home) -> None:
    child = begin_large_save(large, home)
    large.process.kill()
    large.wait()
    child.send_signal(signal.SIGCONT)
    assert child.wait(limit(60)) == 0, (home.data / "saver").read_text()
    assert saving.read_disk(home.find("base@1").path)[LARGE - 1] == 1 + (LARGE - 32 * MEBIBYTE) // MEBIBYTE


def test_a_vm_that_has_ended_is_not_saved(start: StartVm, home: Home) -> None:
    vm = start(home.group())
    saving.wait_for_monitor(vm)
    holder = subprocess.Popen(["nsenter", f"--target={vm.process.pid}", "--mount", "sleep", "60"])
    try:
        wait_closely(lambda: Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n")
        vm.process.kill()
        vm.wait()
        vm.process.pid = holder.pid  # where its files are
        wait_closely(lambda: "ended" in [event["event"] for event in vm.events()])
        assert "error: vm0 has ended" in save(vm, status=1)
    finally:
        holder.kill()
        holder.wait()
    assert names(home) == ["base@0"] and home.leftovers() == []


class Saver:
    """A saver that does what a test tells it."""

    def __init__(self, vm: Vm) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(limit(30))
        self.socket.connect(str(vm.directory / "save"))
        self.stream = self.socket.makefile()
        assert json.loads(self.stream.readline()) == {"go": True}

    def say(self, request: SaverRequest) -> None:
        """Send a message."""
        self.socket.sendall(encode_request(request))

    def command(self, execute: str, **arguments: object) -> dict[str, object]:
        """Return QEMU's answer."""
        self.say(QemuCommand(execute, arguments))
        answer: dict[str, object] = json.loads(self.stream.readline())
        return answer

    def put_layer(self, vm: Vm, scratch: Path) -> None:
        """Put a second layer upon the disk."""
        path = scratch / "vm0.qcow2.save"
        inside(
            vm.process.pid, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "vm0.qcow2", "-F", "qcow2",
            str(path), str(LARGE),
        )
        inside(vm.process.pid, "chown", "daemon:", str(path))
        [disk] = [one for one in saving.ask_qemu(vm, "query-block") if one["device"] == "disk0"]
        file = {"driver": "file", "filename": str(path)}
        assert "return" in self.command("blockdev-add", driver="qcow2", backing=None, file=file, **{"node-name": "save-overlay"})
        assert "return" in self.command("blockdev-snapshot", node=disk["inserted"]["node-name"], overlay="save-overlay")
        inside(vm.process.pid, "rm", str(path))

    def finish(self) -> dict[str, object]:
        """Close our side, and return what the keeper says of the end."""
        self.socket.shutdown(socket.SHUT_WR)
        with self.socket, self.stream:
            answer: dict[str, object] = json.loads(self.stream.readline())
        return answer


def test_a_merge_without_room_is_done_when_there_is_some(start: StartVm, home: Home) -> None:
    vm = start(home.shell(), scratch_size="40m").boot()
    scratch = Path(f"{DATA}/scratch/pcocc/7")
    saver = Saver(vm)
    saver.put_layer(vm, scratch)
    vm.run("dd if=/dev/urandom of=/dev/vda bs=1M count=24; sync; dd if=/dev/vda bs=1M count=24 | md5sum >/sum", 60)
    answer = saver.finish()
    assert answer["merged"] is False and "No space left" in str(answer["error"])
    assert vm.run("dd if=/dev/vda bs=1M count=24 2>/dev/null | md5sum | cmp - /sum && echo same") == "same\n"
    inside(vm.process.pid, "mount", "-o", "remount,size=100m", str(scratch))
    wait_closely(
        lambda: saving.ask_qemu(vm, "query-named-block-nodes")
        and "save-overlay" not in str(saving.ask_qemu(vm, "query-block"))
    )
    assert (
        vm.run(
            "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M count=24 2>/dev/null | md5sum | cmp - /sum && echo"
            " same"
        )
        == "same\n"
    )
    save(vm)


def test_a_full_scratch_is_not_taken_for_the_repository(start: StartVm, home: Home) -> None:
    vm = start(home.shell(persistent=(make_drive(home),)), scratch_size="40m").boot()
    scratch = f"{DATA}/scratch/pcocc/7"
    inside(vm.process.pid, "sh", "-c", f"dd if=/dev/zero of={scratch}/fill bs=64k 2>&1 || true")
    for words in ((), ("--drive=1", "-d", "kept")):
        said = save(vm, *words, status=1)
        assert f"without some room in the job's scratch directory {scratch}: No space left" in said and "repository" not in said
    inside(vm.process.pid, "rm", f"{scratch}/fill")
    assert names(home) == ["base@0"] and home.leftovers() == [] and saving.left_behind(vm) == []
    save(vm)


def find_notes(said: str) -> list[str]:
    """Return the notes of a save, without those that every save makes."""
    return [line for line in said.splitlines() if "note:" in line and KEPT not in line]


@pytest.mark.usefixtures("tiny")
class TestWithAgent:
    """The real agent in a guest with a real file system."""

    @pytest.fixture
    def vm(self, start: StartVm, home: Home, guest: Path) -> Vm:
        """A VM that boots tiny from the repository."""
        home.add(home.user, "tiny", guest / "tiny.qcow2")
        vm: Vm = start(home.group("user:tiny@0")).boot(b"READY vm0")
        wait_closely(
            lambda: any(
                one["label"] == "agent" and one["frontend-open"] for one in saving.ask_qemu(vm, "query-chardev")
            ),
            "the agent", 60,
        )
        return vm

    def test_a_journal_that_is_written_meanwhile_is_saved_whole(self, vm: Vm, start: StartVm, home: Home) -> None:
        """Each record has the sum of the earlier ones: what is saved must be a prefix of what was written, and have
        everything written before the save.
        """
        writer = (
            "n=0; s=0; while :; do n=$((n+1)); s=$(echo $s $n | md5sum | head -c32); echo $n $s >>/j; [ $((n%20)) = 0 ]"
            " && sync; done"
        )
        vm.run(f": >/j; echo '{writer}' >/w.sh; sh /w.sh >/dev/null 2>&1 &")
        count = "tail -n1 /j | cut -d' ' -f1"
        wait_closely(lambda: int(vm.run(count).strip() or 0) > 30)
        before = int(vm.run(count))
        said = save(vm, "--safe")
        assert find_notes(said) == []
        after = int(vm.run(count))
        assert after > before, "the guest went on"
        wait_closely(lambda: int(vm.run(count)) > after)
        vm.terminate()
        vm.wait()
        again = start(home.group("user:tiny@1"), job=8).boot(b"READY vm0")
        record = "n=$((n+1)); s=$(echo $s $n | md5sum | head -c32); [ $a = $n ] && [ $b = $s ] || echo wrong $n"
        check = f"n=0; s=0; while read a b; do {record}; done </j; echo $n"
        assert before <= int(again.run(check, 120)) <= after + 1
        assert "recover" not in again.run("dmesg | grep -i ext4")

    def test_an_agent_that_says_nothing_is_not_waited_for_long(self, vm: Vm) -> None:
        vm.run("kill -STOP $(pidof qemu-ga)")
        begin = time.monotonic()
        said = save(vm)
        assert "were not frozen" in said and "does not answer" in said and time.monotonic() - begin < limit(20)
        assert "cannot be frozen: the guest's agent does not answer" in save(vm, "--safe", status=1)
        vm.run("kill -CONT $(pidof qemu-ga); sleep 1")
        assert find_notes(save(vm, "--safe")) == []

    def test_a_guest_that_was_left_frozen_is_thawed_by_the_keeper(self, vm: Vm) -> None:
        vm.run("mkdir -p /run/t && mount -t tmpfs none /run/t")
        saver = Saver(vm)
        saver.say(Frozen(True))
        with Agent(str(vm.directory / "agent")) as agent:
            assert agent.freeze() > 0
            # not as a child of the shell: busybox takes a child's end for its own
            vm.run("((echo x >/x; sync; echo done >/run/t/done) &)")
            assert vm.run("sleep 2; ls /run/t") == ""
        assert saver.finish() == {"merged": True}
        wait_closely(lambda: "done" in vm.run("ls /run/t"))

    def test_answers_that_the_saver_did_not_wait_for_are_not_the_keepers(self, vm: Vm) -> None:
        saver = Saver(vm)
        saver.say(Frozen(True))
        with Agent(str(vm.directory / "agent")) as agent:
            assert agent.freeze() > 0
            vm.run("kill -STOP $(pidof qemu-ga)")
            agent._send(b'{"execute": "guest-sync-delimited", "arguments": {"id": 7}}\n')
        assert saver.finish() == {"merged": True}
        vm.run("kill -CONT $(pidof qemu-ga)")
        assert vm.run("echo x >/x; sync; cat /x") == "x\n"

    def test_an_agent_whose_client_has_hung_up_rests(self, vm: Vm) -> None:
        used = "cut -d' ' -f14,15 /proc/$(pidof qemu-ga)/stat"  # proc(5): utime and stime, in hundredths
        vm.run("kill -STOP $(pidof qemu-ga)")
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(vm.directory / "agent"))
                client.sendall(b'\xff{"execute": "guest-info"}\n')
        before = sum(map(int, vm.run(f"{used}; kill -CONT $(pidof qemu-ga); sleep 4").split()))
        after = sum(map(int, vm.run(used).split()))
        assert after - before < 200, "half of the time that has passed"
        with Agent(str(vm.directory / "agent")) as agent:
            assert agent.command("guest-ping") == {}

    def test_a_guest_is_thawed_whatever_becomes_of_the_saver(self, vm: Vm, home: Home) -> None:
        step = 0
        while (status := saving.start_save(vm, "--safe", die_at=step).wait(limit(60))) != 0:
            assert status in (-signal.SIGKILL, 128 + signal.SIGKILL), (step, (home.data / "saver").read_text())
            assert vm.run(f"echo {step} >/x && sync; cat /x", 30) == f"{step}\n"
            wait_closely(lambda: saving.left_behind(vm) == [])
            step += 1
        assert step > 30
        assert find_notes(save(vm, "--safe")) == []

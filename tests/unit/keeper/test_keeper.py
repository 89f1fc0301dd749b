"""A real keeper, with a process and a socket of the test's in place of QEMU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime.documents.save import STAYS
from pcocc_runtime.documents.vm import DRIVES_FILE, VmFacts, encode_vm
from pcocc_runtime.documents.vm_state import VmState, decode_state
from pcocc_runtime.keeper.power_off import STORE_SECONDS, PowerOff
from pcocc_runtime.system.watch import is_abandoned, start_watch
from tests.waiting import limit, wait_closely

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pcocc_runtime.keeper.main import main; sys.exit(main())"
USE = f"""import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pcocc_runtime.system.used import mark_command
mark_command(sys.argv[1])
os.write(1, b".")
sys.stdin.read()
"""
GREETING = b'{"QMP": {"version": {}}}\r\n'


class Beside:
    """A keeper, and what it keeps."""

    def __init__(
        self, directory: Path, pid: int | None = None, address: str = "", timeout: int = 300, keep: bool = False,
        stored: bool = False, drives_grace: int = 0,
    ) -> None:
        self.directory = directory
        directory.mkdir()
        self.qemu = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        self.qmp, ours = socket.socketpair()
        self.qmp.settimeout(limit(20))
        watch = start_watch(directory)
        with ours, socket.socket() as probe:
            facts = VmFacts(
                7, 0, "n1", pid or self.qemu.pid, ours.fileno(), probe.fileno(), watch, address, "u", timeout,
                str(directory), "tcg", "tests", True,
                {"disk0": "/d"}, [], [], 0, str(directory / "agent"), str(directory / "agent.qemu"),
                str(directory / "console.log"), 1 << 20, keep=keep, stored=stored, drives_grace=drives_grace,
            )  # fmt: skip
            self.process = subprocess.Popen(
                [sys.executable, "-IS", "-c", PROGRAM, encode_vm(facts)], stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True,
                pass_fds=[facts.qmp, probe.fileno(), watch],
            )  # fmt: skip
        os.close(watch)

    def state(self) -> VmState | None:
        """Return what the keeper has written."""
        path = self.directory / "state"
        return decode_state(path.read_text()) if path.exists() else None

    def event(self) -> dict[str, Any]:
        """Return what the keeper says next."""
        assert self.process.stdout is not None
        event: dict[str, Any] = json.loads(self.process.stdout.readline().removeprefix("@pcocc "))
        return event

    def commands(self, count: int) -> list[str]:
        """Return what QEMU is asked next."""
        data = b""
        while data.count(b"\n") < count:
            data += self.qmp.recv(4096)
        return [json.loads(line)["execute"] for line in data.splitlines()]

    def end(self) -> None:
        """Kill what runs."""
        for process in (self.qemu, self.process):
            process.kill()
            process.communicate()
        self.qmp.close()


Start = Callable[..., Beside]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Beside] = []

    def start_keeper(**facts: Any) -> Beside:
        started.append(Beside(tmp_path / "vm0", **facts))
        return started[-1]

    yield start_keeper
    for one in started:
        one.end()


def test_a_vm_without_an_address_is_up_when_its_qemu_greets(start: Start) -> None:
    keeper = start()
    assert keeper.commands(1) == ["qmp_capabilities"] and keeper.state() is None
    keeper.qmp.sendall(GREETING)
    assert keeper.event() == {"event": "started", "accel": "tcg", "why": "tests", "kvm_expected": True, "vm": "vm0", "node": "n1"}
    event = keeper.event()
    assert event["event"] == "ready"
    assert keeper.state() == VmState("up", event["seconds"])


@pytest.mark.parametrize("address", ["", "127.0.0.99"])
def test_a_vm_whose_qemu_never_greets_is_silent_in_time(start: Start, address: str) -> None:
    keeper = start(address=address, timeout=1)
    event = keeper.event()
    assert (event["event"], event["seconds"]) == ("silent", 1) and keeper.state() == VmState("silent", 1)


def test_a_qemu_that_ended_before_its_keeper_began_has_ended(start: Start) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    keeper = start(pid=gone.pid)
    assert keeper.event() == {
        "event": "ended", "reason": "killed", "text": "its QEMU was killed", "asked": False, "vm": "vm0", "node": "n1",
    }  # fmt: skip
    assert keeper.process.wait(limit(20)) == 0 and keeper.state() == VmState("ended", reason="killed")


def test_an_end_that_was_told_is_not_changed_any_more(start: Start) -> None:
    keeper = start(address="127.0.0.99", timeout=1)
    keeper.commands(1)
    keeper.qmp.sendall(GREETING + b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}\r\n')
    assert [keeper.event()["event"] for _ in range(2)] == ["started", "ended"] and keeper.commands(1) == ["quit"]
    keeper.qemu.kill()
    keeper.qemu.wait()
    assert keeper.process.wait(limit(20)) == 0
    assert (
        keeper.state() == VmState("ended", reason="guest-shutdown")
        and keeper.process.stdout
        and keeper.process.stdout.read() == ""
    )


def test_a_vm_to_keep_is_off_until_it_goes_on(start: Start) -> None:
    keeper = start(keep=True)
    keeper.commands(1)
    keeper.qmp.sendall(GREETING)
    assert [keeper.event()["event"] for _ in range(2)] == ["started", "ready"]
    keeper.qmp.sendall(b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}\r\n')
    wait_closely(lambda: keeper.state() == VmState("off"))
    keeper.qmp.sendall(b'{"event": "RESET"}\r\n{"event": "RESUME"}\r\n')
    assert keeper.event()["event"] == "ready"
    assert (keeper.state() or VmState("")).state == "up"
    keeper.qmp.sendall(b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-panic"}}\r\n')
    event = keeper.event()
    assert (event["event"], event["reason"], keeper.commands(1)) == ("ended", "guest-panic", ["quit"])


def test_a_vm_that_is_off_ends_at_once_when_slurm_ends_it(start: Start) -> None:
    keeper = start(keep=True)
    keeper.commands(1)
    keeper.qmp.sendall(GREETING + b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}\r\n')
    wait_closely(lambda: keeper.state() == VmState("off"))
    keeper.process.terminate()
    assert keeper.commands(1) == ["quit"]
    keeper.qmp.sendall(b'{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}\r\n')
    keeper.qemu.kill()
    keeper.qemu.wait()
    assert keeper.process.wait(limit(20)) == 0
    assert keeper.state() == VmState("ended", reason="host-qmp-quit", asked=True)


@pytest.mark.parametrize("refused", [True, False])
def test_a_drive_that_its_guest_releases_is_closed_though_nobody_waits(start: Start, refused: bool) -> None:
    keeper = start()
    keeper.commands(1)
    keeper.qmp.sendall(b'{"event": "DEVICE_DELETED", "data": {"path": "/x"}}\r\n')
    keeper.qmp.sendall(b'{"event": "DEVICE_DELETED", "data": {"device": "disk2", "path": "/x"}}\r\n')
    assert keeper.commands(1) == ["blockdev-del"]
    answer = b'"error": {"desc": "in use"}' if refused else b'"return": {}'
    keeper.qmp.sendall(b'{"id": "release-disk2", %s}\r\n' % answer)
    keeper.process.terminate()
    assert keeper.commands(1 if refused else 2) == [*(() if refused else ("remove-fd",)), "quit"]


def test_a_guest_that_was_given_a_drive_has_its_time_to_power_off(start: Start) -> None:
    keeper = start(drives_grace=20)
    (keeper.directory / DRIVES_FILE).touch()
    keeper.commands(1)
    keeper.process.terminate()
    assert keeper.commands(1) == ["system_powerdown"]


def test_a_vm_that_is_stored_at_its_end_waits_for_that(start: Start) -> None:
    keeper = start(stored=True)
    keeper.commands(1)
    keeper.qmp.sendall(GREETING)
    assert [keeper.event()["event"] for _ in range(2)] == ["started", "ready"]
    keeper.process.terminate()
    assert keeper.event() == {"event": "leaving", "vm": "vm0", "node": "n1"}
    with socket.socket(socket.AF_UNIX) as task:
        task.connect(str(keeper.directory / "pause"))
        assert keeper.commands(1) == ["query-status"]
        keeper.qmp.sendall(b'{"id": "pause-look", "return": {"running": true, "status": "running"}}\r\n')
        assert keeper.commands(1) == ["stop"]
        keeper.qmp.sendall(b'{"id": "pause-stop", "return": {}}\r\n')
        assert task.recv(100) == b'{"paused": true}\n'
        task.sendall(STAYS)
    assert keeper.commands(1) == ["quit"]
    keeper.qemu.kill()
    keeper.qemu.wait()
    assert keeper.process.wait(limit(20)) == 0
    assert (keeper.state() or VmState("")).asked


@pytest.mark.thorough
def test_a_vm_ends_after_the_commands_that_run_in_it(start: Start) -> None:
    keeper = start()
    keeper.commands(1)
    keeper.qmp.sendall(GREETING)
    assert [keeper.event()["event"] for _ in range(2)] == ["started", "ready"]
    command = subprocess.Popen([sys.executable, "-c", USE, str(keeper.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert command.stdout is not None and command.stdout.read(1) == b"."
    keeper.process.terminate()
    keeper.qmp.settimeout(2)
    with pytest.raises(TimeoutError):
        keeper.commands(1)
    keeper.qmp.settimeout(limit(20))
    command.communicate()
    assert keeper.commands(1) == ["quit"]


def test_a_vm_that_nobody_stores_at_its_end_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    facts = VmFacts(
        7, 0, "n1", os.getpid(), 0, None, 0, "", "u", 300, str(tmp_path), "tcg", "", True, {}, [], [], 0, "/a", "/q", "/c", 0,
        stored=True,
    )  # fmt: skip
    one = PowerOff(facts, sent.append)
    one.wait()
    assert one.is_watching() and not one.has_waited() and not one.is_late() and sent == []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + STORE_SECONDS + 1)
    assert one.has_waited()
    one.ask(paused=False)
    assert sent == ["quit"]
    one = PowerOff(facts._replace(grace=60, agent=str(tmp_path / "none")), sent.append)
    one.wait()
    one.ask(paused=False)
    assert sent[1:] == ["system_powerdown"] and not one.has_waited(), "a guest with drives has its time"


def test_what_qemu_never_says_does_not_end_the_keeper(start: Start) -> None:
    keeper = start()
    keeper.commands(1)
    keeper.qmp.sendall(b"\r\n3\nnonsense\n" + b"[" * (1 << 21) + b"\n" + GREETING)
    assert keeper.event()["event"] == "started"
    keeper.qmp.sendall(b'{"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "device": "disk0", "nospace": true}}\r\n')
    assert [keeper.event()["event"], keeper.event()] == [
        "ready",
        {"event": "disk-error", "reason": "the file system of its disk is full", "disk": "/d", "vm": "vm0", "node": "n1"},
    ]


def test_a_keeper_that_is_killed_has_abandoned_its_vm(start: Start) -> None:
    keeper = start()
    keeper.commands(1)
    assert not is_abandoned(keeper.directory)
    keeper.process.send_signal(signal.SIGKILL)
    wait_closely(lambda: is_abandoned(keeper.directory))
    assert keeper.state() is None


@pytest.mark.parametrize("text", ["", "{}", '{"job": "7"}'])
def test_a_keeper_that_was_told_nothing_says_so(text: str) -> None:
    done = subprocess.run([sys.executable, "-IS", "-c", PROGRAM, text], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("pcocc: error: the VM's description by its launcher cannot be read: ")
    assert done.stderr.count("\n") == 2 and "hint: " in done.stderr
